"""`lalm train --dry-run`: what a recipe would train, on what, and one sample as the model will meet it. No weights."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lalm.data.dataset import StageData, build_stage_data
from lalm.model.build import build_empty, build_processor
from lalm.processing.xray import show_sample
from lalm.recipe.schema import Recipe
from lalm.training.batches import NamedBatches, open_clip_store
from lalm.training.callbacks import say
from lalm.training.stages import describe, enter_stage

NUMBERS = ("steps", "records", "epochs", "micro-batches", "positions", "supervised", "audio hours")


def print_plan(recipe: Recipe, stages: list[int], world_size: int, console: Console) -> None:
    """Prints a row for each stage, what is left out, and the first sample of each."""
    model = build_empty(recipe)
    processor = build_processor(recipe, model.audio_tower)
    clips = open_clip_store(recipe, processor)
    table = Table(title=f"{recipe.name}: the plan", title_justify="left")
    table.add_column("stage")
    for name in NUMBERS:
        table.add_column(name, justify="right")
    samples, notes = [], []
    for index in stages:
        stage = recipe.stages[index]
        data = build_stage_data(recipe, index, processor, clips, world_size=world_size)
        counts = enter_stage(model, stage, num_classes=len(data.classes))
        if stage.answers == "continued":
            notes.append(f"{stage.name}: transcripts stand where the language model's continuations will be")
        notes.append(f"{stage.name} trains {describe(counts)} parameters")
        table.add_row(stage.name, *_numbers(data, NamedBatches(data, clips)))
        samples.append((stage.name, data.examples[int(data.plan[0][0])]))
        if len(data.dropped):
            notes.append(f"{stage.name}: {len(data.dropped)} records are left out\n{data.dropped.summary()}")
        if data.num_truncated:
            notes.append(f"{stage.name}: {data.num_truncated} answers are shortened to data.max_text_tokens")
    console.print(table)
    for note in notes:
        say(console, note)
    for name, example in samples:
        console.print(Text(f"\n{name}", style="bold"))
        show_sample(processor, example.record, [end - start for start, end in example.audio_spans], console)
    console.print("Nothing was trained.", style="dim")


def _numbers(data: StageData, batches: NamedBatches) -> list[str]:
    drawn = [data.examples[int(number)] for number in data.plan.order]
    seconds = {path: batches.seconds(path) for example in data.examples for path in example.clips}
    audio = sum(seconds[path] for example in drawn for path in example.clips)
    values = (
        data.plan.num_steps,
        len(data.examples),
        f"{len(drawn) / data.plan.draws_per_epoch:.1f}",
        data.plan.gradient_accumulation_steps,
        sum(len(example) for example in drawn),
        sum(example.num_supervised for example in drawn),
        f"{audio / 3600:.2f}",
    )
    return [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
