"""What a run has forgotten of the runs that it started from: each one's held-out records, asked before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalm.data.examples import open_clips
from lalm.data.state_cache import open_state_cache
from lalm.errors import LalmError
from lalm.evaluation.held_out import split_records
from lalm.evaluation.measuring import evaluate_model
from lalm.recipe.schema import Recipe

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

SCORES = ("accuracy", "wer")


def measure_forgotten(
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    recipe: Recipe,
    *,
    max_records_per_task: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """For each run that this one descends from, the nearest first: `{"run", "tasks": {NAME: {"n", "score", "before",
    "after"}}}`, where `score` is accuracy or wer; with "problem" instead of tasks where it cannot be measured.

    `before` is what the earlier run itself scores on the held-out records of its recipe, `after` what `model` scores;
    each decodes as its own recipe says.
    """
    from lalm.model.checkpoint import load_run

    found = []
    run = recipe.init
    while run is not None:
        entry: dict[str, Any] = {"run": str(run)}
        found.append(entry)
        try:
            old_model, old_processor, earlier = load_run(run)
            records, _, _ = split_records(earlier, max_records_per_task or earlier.evaluation.max_records_per_task)
        except LalmError as error:
            entry["problem"] = str(error)
            break
        clips = open_clips(earlier, processor.sampling_rate)
        scores = []
        asks = ((old_model, old_processor, earlier), (model, processor, recipe))
        for asked, asked_processor, own in asks:
            result = evaluate_model(
                asked,
                asked_processor,
                records,
                clips,
                own.generation,
                yardsticks=(),
                batch_size=batch_size,
                seed=earlier.seed,
                cache=open_state_cache(own, asked, asked_processor),
                progress=progress,
            )
            scores.append(result.metrics["tasks"])
        entry["tasks"] = {name: _compared(scores[0][name], figures) for name, figures in scores[1].items()}
        run = None if earlier.init is None else Path(earlier.init)
    return found


def _compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    score = next(name for name in SCORES if name in after)
    return {"n": after["n"], "score": score, "before": before[score], "after": after[score]}
