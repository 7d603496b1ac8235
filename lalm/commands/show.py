"""`lalm show`: the X-ray of one sample, every token as audio, prompt or supervised, as training and chat see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lalm.commands.arguments import OverridesArgument

if TYPE_CHECKING:
    from lalm.data.examples import SourcedRecord
    from lalm.processing.processor import LalmProcessor
    from lalm.recipe.schema import Recipe


def show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or the folder of a run.")],
    record: Annotated[
        str | None, typer.Argument(metavar="[RECORD]", help="The id of a record, or its number; the first by default.")
    ] = None,
    overrides: OverridesArgument = None,
) -> None:
    """Show one sample as the model meets it: each token with its id, what is supervised, and the invariants checked."""
    changes = list(overrides or ())
    if record is not None and "=" in record:
        changes.insert(0, record)
        record = None
    from lalm.recipe.load import load_recipe

    loaded = load_recipe(recipe, changes)
    from rich.console import Console

    from lalm.audio.io import load_audio
    from lalm.data.variants import worded
    from lalm.processing.xray import show_sample

    chosen = find_record(loaded, record)
    processor = open_processor(loaded, Path(recipe))
    lengths = [len(load_audio(clip, processor.sampling_rate)) for clip in chosen.clips]
    record_shown = worded(chosen.record, loaded.data)
    xray = show_sample(processor, record_shown, [processor.num_positions(length) for length in lengths], Console())
    if processor.step_rule is not None and lengths:
        typer.echo("Audio positions are the most there can be: repeated units are left out when the clip is heard.")
    if not xray.holds:
        raise typer.Exit(1)


def open_processor(recipe: Recipe, path: Path) -> LalmProcessor:
    """The saved processor of a run folder, or the one that the recipe makes; no weights are loaded."""
    if (path / "processor_config.json").is_file():
        from lalm import LalmProcessor

        return LalmProcessor.from_pretrained(path)
    from lalm.model.build import build_processor
    from lalm.model.plan import build_without_weights

    return build_processor(recipe, build_without_weights(recipe).audio_tower)


def find_record(recipe: Recipe, wanted: str | None) -> SourcedRecord:
    """A training or evaluation record by id or number.

    Raises:
        DataError: if the recipe's sources have no such record.
    """
    from lalm.data.examples import Dropped, load_source
    from lalm.data.sequences import Joined
    from lalm.errors import DataError

    parts = []
    for name, section in recipe.data.sources.items():
        splits = dict.fromkeys((*section.splits, *recipe.evaluation.splits))
        section = section.model_copy(update={"splits": tuple(splits), "max_records": None})
        parts.append(load_source(recipe.data.folder, name, section, seed=0, max_bad_share=1.0, dropped=Dropped()))
    records = Joined(parts)
    if wanted is None and len(records):
        return records[0]
    for number, item in enumerate(records):
        if wanted in (item.record.id, str(number)):
            return item
    raise DataError(
        f"no record '{wanted or 0}' in the {len(records)} records of {', '.join(recipe.data.sources)} in "
        f"{recipe.data.folder}. Give an id, or a number from 0 to {max(len(records) - 1, 0)}."
    )
