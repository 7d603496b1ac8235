"""Measures a model on held-out records, beside its yardsticks, and writes what was found into the run folder.

    metrics.json       {"tasks": {NAME: {"n", "accuracy" or "wer", "silent", "swapped", "majority", "chance", "probe",
                       ...}}, "wall_seconds": {...}, ...}; "forgotten", where it started from another run: that run's
                       tasks before and after
    predictions.jsonl  one record a line: question, truth, and what the model replied to the clip, to silence and to
                       another clip
    report.html        the same for people

The model answers greedily by default, each question three times: about its clip, about silence of the same length, and
about another clip of the task. Text comes from `lalm.inference`, as in chat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lalm.data.state_cache import open_state_cache
from lalm.errors import DataError
from lalm.evaluation.console import bar, forgotten_table, metrics_table
from lalm.evaluation.forgetting import measure_forgotten
from lalm.evaluation.measuring import evaluate_model, timed
from lalm.files import write_json, write_text
from lalm.tables import print_table, table_console

__all__ = ["evaluate_model", "evaluate_run", "read_metrics", "write_results"]

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"


def evaluate_run(
    run: str | Path,
    *,
    overrides: Sequence[str] = (),
    max_records_per_task: int | None = None,
    batch_size: int | None = None,
    yardsticks: Sequence[str] | None = None,
    report: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Loads a run, evaluates it as its recipe says, prints the table and writes metrics, predictions and report.

    Args:
        overrides: `a.b=value` changes of the saved recipe's `data`, `evaluation` and `generation` sections.
        max_records_per_task, batch_size, yardsticks: replace the recipe's.

    Raises:
        CheckpointError: if the folder holds no complete run.
        DataError: if there is nothing to evaluate on, or no clip of it can be used.
    """
    from lalm.data.examples import open_clips
    from lalm.evaluation.held_out import split_records
    from lalm.model.checkpoint import load_run
    from lalm.recipe.load import load_recipe

    run, started = Path(run), time.perf_counter()
    seconds: dict[str, float] = {}
    with timed(seconds, "load"):
        model, processor, recipe = load_run(run)
        if overrides:
            recipe = load_recipe(run / "recipe.yaml", overrides)
        section = recipe.evaluation
        test, train, problems = split_records(recipe, max_records_per_task or section.max_records_per_task)
    clips = open_clips(recipe, processor.sampling_rate)
    result = evaluate_model(
        model,
        processor,
        test,
        clips,
        recipe.generation,
        train_records=train,
        yardsticks=section.yardsticks if yardsticks is None else yardsticks,
        max_deaf_records_per_task=section.max_deaf_records_per_task,
        batch_size=batch_size or section.batch_size,
        seed=recipe.seed,
        cache=open_state_cache(recipe, model, processor),
        progress=progress,
    )
    if not result.predictions:
        shown = "\n  ".join(item["reason"] for item in result.metrics["skipped"][:5])
        raise DataError(f"{run}: none of the {len(test)} held-out records can be used:\n  {shown}")
    metrics = {"run": recipe.name, **result.metrics}
    metrics["skipped"] += [{"id": name, "reason": reason} for name, reason in problems.items()]
    if recipe.init is not None:
        with timed(seconds, "forgotten"):
            metrics["forgotten"] = measure_forgotten(
                model,
                processor,
                recipe,
                max_records_per_task=max_records_per_task or section.max_records_per_task,
                batch_size=batch_size or section.batch_size,
                progress=progress,
            )
    seconds |= metrics["wall_seconds"]
    earlier = read_metrics(run).get("wall_seconds", {})
    metrics["wall_seconds"] = {**earlier, **seconds, "evaluate": round(time.perf_counter() - started, 3)}
    write_results(run, metrics, result.predictions)
    if report:
        from lalm.evaluation.report import write_report

        with bar("report", 1, shown=progress) as advance:
            write_report(run, metrics, result.predictions, recipe, clips)
            advance(1)
    console = table_console()
    print_table(console, metrics_table(metrics, title=f"{recipe.name}: {len(result.predictions)} held-out records"))
    for entry in metrics.get("forgotten", ()):
        print_table(console, forgotten_table(entry))
    if metrics["skipped"]:
        console.print(f"{len(metrics['skipped'])} records were skipped, listed in {run / METRICS}", style="yellow")
    return metrics


def read_metrics(run: Path) -> dict[str, Any]:
    """What an earlier evaluation of the run wrote; empty if there is none."""
    path = Path(run) / METRICS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_results(run: Path, metrics: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> None:
    """Writes metrics.json and predictions.jsonl, each atomically."""
    write_json(run / METRICS, metrics)
    write_text(run / PREDICTIONS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions))
