"""`lalm check`: validates a recipe, resolves names and sizes, and shows what it would train. Loads no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lalm.commands.arguments import OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from rich.table import Table

    from lalm.model.plan import ModelPlan
    from lalm.recipe.schema import Recipe

MAX_PROBED_CLIPS = 2000
"""Lengths of more clips than this are estimated from so many."""


def check(recipe: RecipeArgument, overrides: OverridesArgument = None) -> None:
    """Check a recipe without loading weights: sizes, audio positions, what trains in each stage, memory, data."""
    from rich.console import Console

    from lalm.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    missing = missing_sources(loaded)
    from lalm.model.plan import plan_model

    plan = plan_model(loaded)
    console = Console()
    console.print(f"[bold]{loaded.name}[/bold]  {loaded.description}\n", highlight=False)
    for table in (rates_table(plan), parts_table(plan), stages_table(plan, loaded)):
        console.print(table)
        console.print()
    problems = list(plan.problems)
    if missing and loaded.data.build:
        console.print(
            f"The data is not there yet ({missing[0]}). Make it with: lalm data build {loaded.data.build} "
            f"-o {loaded.data.folder}",
            style="yellow",
            highlight=False,
        )
    elif missing:
        problems += [f"data.sources: {path}: no such file of records" for path in missing]
    else:
        console.print(describe_data(loaded, plan), highlight=False)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    if problems:
        raise typer.Exit(2)
    console.print("The recipe can be trained.", style="green")


def missing_sources(recipe: Recipe) -> list[str]:
    """Files of records that the recipe names and that do not exist."""
    paths = [recipe.data.folder / source.records for source in recipe.data.sources.values()]
    return [str(path) for path in paths if not path.exists()]


def rates_table(plan: ModelPlan) -> Table:
    """Rates on the way from samples to positions."""
    from rich.table import Table

    table = Table("part", "in", "out", title="From sound to positions", title_justify="left")
    for encoder in plan.encoders:
        table.add_row(
            f"{encoder.name} ({encoder.base})",
            f"{encoder.sample_rate_hz} samples/s",
            f"{encoder.steps_per_second:g} steps/s of width {encoder.width}",
        )
    if plan.join:
        table.add_row(
            "encoders together", plan.join, f"{plan.states_per_second:g} states/s of width {plan.state_width}"
        )
    counts = ", ".join(f"{count} for {seconds} s" for seconds, count in plan.positions.items())
    table.add_row("projector", f"width {plan.state_width}", f"{counts}; width {plan.decoder_width}")
    context = f"{plan.max_positions} positions at most" if plan.max_positions else "any length"
    table.add_row("language model", context, f"{plan.vocabulary_size} tokens")
    return table


def parts_table(plan: ModelPlan) -> Table:
    """Parameters of each part, and the stages that it trains in."""
    from rich.table import Table

    table = Table("part", title="Parameters", title_justify="left")
    table.add_column("parameters", justify="right")
    for stage in plan.stages:
        table.add_column(stage.name, justify="right")
    for part, count in plan.parameters.items():
        table.add_row(part, f"{count:,}", *("trains" if part in stage.trained else "" for stage in plan.stages))
    table.add_section()
    shares = (f"{stage.num_trained:,} ({stage.num_trained / plan.num_parameters:.1%})" for stage in plan.stages)
    table.add_row("all", f"{plan.num_parameters:,}", *shares)
    return table


def stages_table(plan: ModelPlan, recipe: Recipe) -> Table:
    """Length of each stage and an estimate of the memory that it takes."""
    from rich.table import Table

    table = Table(title=f"Stages (estimated memory in MiB; frozen weights in {plan.dtype})")
    table.title_justify = "left"
    for name in ("stage", "length"):
        table.add_column(name, no_wrap=True)
    for name in ("weights", "gradients", "Adam", "activations", "all"):
        table.add_column(name, justify="right", no_wrap=True)
    for section, stage in zip(recipe.stages, plan.stages, strict=True):
        length = section.describe_budget()
        sizes = (stage.weight_bytes, stage.gradient_bytes, stage.optimizer_bytes, stage.activation_bytes)
        cells = (f"{size / 2**20:,.0f}" for size in (*sizes, stage.total_bytes))
        table.add_row(section.name, length, *cells)
    return table


def describe_data(recipe: Recipe, plan: ModelPlan) -> str:
    """Records and audio of the training data, and the size that its encoder states would have on the disk."""
    from lalm.audio.io import probe_audio
    from lalm.data.examples import clip_paths, load_records
    from lalm.errors import AudioError

    records, dropped = load_records(recipe)
    paths = clip_paths(records)
    probed, seconds, unreadable = paths[:: max(1, -(-len(paths) // MAX_PROBED_CLIPS))], 0.0, 0
    for path in probed:
        try:
            seconds += probe_audio(path).seconds
        except AudioError:
            unreadable += 1
    seconds *= len(paths) / max(len(probed), 1)
    text = f"Data: {len(records)} records on {len(paths)} clips, {seconds / 60:.1f} minutes of audio."
    if dropped:
        text += f" {len(dropped)} records break the contract and are left out."
    if unreadable:
        text += f" {unreadable} of {len(probed)} clips cannot be read."
    if recipe.data.cache_states and all(stage.learning_rates.encoder is None for stage in recipe.stages):
        value_bytes = {"float16": 2, "bfloat16": 2, "float32": 4}[recipe.data.cache_dtype]
        size = seconds * plan.states_per_second * plan.state_width * value_bytes
        text += f" Their encoder states take about {size / 2**20:,.0f} MiB in the cache."
    return text
