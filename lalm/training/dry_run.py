"""`lalm train --dry-run`: what a recipe would train, on what, and one sample as the model will meet it. No weights."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lalm.data.dataset import StageData, build_stage_data
from lalm.data.example_store import ExampleStore
from lalm.data.examples import Example
from lalm.data.mixture import StagePlan
from lalm.data.state_cache import caches_states
from lalm.model.build import build_empty, build_processor
from lalm.model.memory_plan import plan_memory
from lalm.processing.xray import show_sample
from lalm.recipe.schema import Recipe
from lalm.tables import print_table
from lalm.training.batch_shapes import largest_batch
from lalm.training.batches import NamedBatches, open_clip_store
from lalm.training.callbacks import say
from lalm.training.stages import describe, enter_stage

NUMBERS = ("steps", "records", "epochs", "micro-batches", "positions", "supervised", "audio hours", "memory (MiB)")


def print_plan(recipe: Recipe, stages: list[int], world_size: int, console: Console) -> None:
    """Prints a row for each stage, what is left out, and the first sample of each."""
    model = build_empty(recipe)
    processor = build_processor(recipe, model.audio_tower)
    clips = open_clip_store(recipe, processor)
    table = Table(title=f"{recipe.name}: the plan", title_justify="left")
    table.add_column("stage")
    for name in NUMBERS:
        table.add_column(name, justify="right")
    samples, notes, rows, shapes = [], [], [], {}
    if processor.step_rule is not None:
        notes.append("positions are the most there can be: repeated units are left out when clips are heard")
    for index in stages:
        stage = recipe.stages[index]
        data = build_stage_data(recipe, index, processor, clips, world_size=world_size)
        counts = enter_stage(model, stage, num_classes=len(data.classes))
        if stage.answers == "continued":
            notes.append(f"{stage.name}: transcripts stand where the language model's continuations will be")
        notes.append(f"{stage.name} trains {describe(counts)} parameters")
        rows.append([stage.name, *_numbers(data, NamedBatches(data, clips))])
        if isinstance(data.examples, ExampleStore):
            shapes[stage.name] = largest_batch(data, clips)
        else:
            notes.append(f"{stage.name} is streamed: positions and audio are counted as they are read")
        samples.append((stage.name, _first_example(data)))
        if len(data.dropped):
            notes.append(f"{stage.name}: {len(data.dropped)} records are left out\n{data.dropped.summary()}")
        if data.num_truncated:
            notes.append(f"{stage.name}: {data.num_truncated} answers are shortened to data.max_text_tokens")
    memory = plan_memory(recipe, live_encoder=not caches_states(recipe), shapes=shapes)
    totals = {stage.name: f"{stage.total / 2**20:,.0f}" for stage in memory}
    for row in rows:
        table.add_row(*row, totals[row[0]])
    print_table(console, table)
    for note in notes:
        say(console, note)
    for name, example in samples:
        console.print(Text(f"\n{name}", style="bold"))
        show_sample(processor, example.record, [end - start for start, end in example.audio_spans], console)
    console.print("Nothing was trained.", style="dim")


def _first_example(data: StageData) -> Example:
    if isinstance(data.examples, ExampleStore) and isinstance(data.plan, StagePlan):
        return data.examples[int(data.plan[0][0])]
    return data.dataset.micro_batch(0).examples[0]


def _numbers(data: StageData, batches: NamedBatches) -> list[str]:
    if not isinstance(data.examples, ExampleStore):
        drawn_share = data.plan.num_steps * data.plan.batch_records / data.plan.draws_per_epoch
        known = (data.plan.num_steps, len(data.examples), f"{drawn_share:.1f}", data.plan.gradient_accumulation_steps)
        return [f"{value:,}" if isinstance(value, int) else value for value in (*known, "-", "-", "-")]
    assert isinstance(data.plan, StagePlan)
    columns, drawn = data.examples.columns, data.plan.order
    values = (
        data.plan.num_steps,
        len(data.examples),
        f"{len(drawn) / data.plan.draws_per_epoch:.1f}",
        data.plan.gradient_accumulation_steps,
        int(columns["length"][drawn].sum()),
        int(columns["supervised"][drawn].sum()),
        f"{columns['samples'][drawn].sum() / batches.clips.sample_rate_hz / 3600:.2f}",
    )
    return [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
