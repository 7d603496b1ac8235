"""`lalm check`: validates a recipe, resolves names and sizes, and shows what it would train. Loads no weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lalm.commands.arguments import OverridesArgument, RecipeArgument, TinyOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from lalm.model.machines import Fit, Machine, MachinePlanner
    from lalm.model.memory import BatchShape
    from lalm.model.memory_plan import StageMemory
    from lalm.model.plan import ModelPlan
    from lalm.model.published_sizes import SizeComparison
    from lalm.recipe.schema import Recipe

MAX_PROBED_CLIPS = 2000
"""Lengths of more clips than this are estimated from so many."""


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    tiny: TinyOption = False,
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="NxGB", help="Memory and time on 1x24, 8x80 or 4x8x80 (nodes) GPUs; repeatable."),
    ] = None,
) -> None:
    """Check a recipe without loading weights: sizes, audio positions, what trains in each stage, memory, data.

    Needs no network for the base models that the shipped recipes name. A published system is compared with what its
    paper prints.
    """
    from rich.console import Console

    from lalm.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), tiny=tiny)
    missing = missing_sources(loaded)
    console = Console()
    with Console(stderr=True).status("Reading torch and transformers ...") as status:
        from lalm.data.state_cache import caches_states
        from lalm.model.machines import MachinePlanner, parse_machine
        from lalm.model.memory_plan import plan_memory
        from lalm.model.plan import build_without_weights, plan_model
        from lalm.model.published_sizes import compare_sizes

        machines = [parse_machine(text) for text in machine or ()]
        status.update("Building the model without weights ...")
        model = build_without_weights(loaded)
        plan = plan_model(loaded, model)
        shapes = None if missing else batch_shapes(loaded)
        live = not caches_states(loaded)
        status.update("Counting what a step of each stage holds ...")
        memory = plan_memory(loaded, live_encoder=live, shapes=shapes, model=model)
        planner = MachinePlanner(loaded, live_encoder=live, shapes=shapes) if machines else None
    comparisons = compare_sizes(loaded, plan)
    console.print(f"[bold]{loaded.name}[/bold]  {loaded.description}\n", highlight=False)
    tables = [rates_table(plan), parts_table(plan), stages_table(loaded, memory, plan.dtype, knows_data=bool(shapes))]
    if planner:
        tables.append(machines_table(planner, machines))
    for table in [*tables, *([sizes_table({loaded.name: comparisons})] if comparisons else [])]:
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
    elif missing and (is_to_be_given(loaded) or is_as_shipped(recipe, overrides or ())):
        files = ", ".join(dict.fromkeys(str(source.records) for source in loaded.data.sources.values()))
        console.print(
            f"The records are yours to give: data.folder=FOLDER with {files}, or --tiny to try the stages without.",
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


def is_to_be_given(recipe: Recipe) -> bool:
    """Whether the recipe is a published system's, or a tiny twin, whose data folder nobody has named yet."""
    is_of_a_system = recipe.system is not None or recipe.data.folder.parts[:2] == ("data", "tiny")
    return is_of_a_system and not recipe.data.folder.exists()


def is_as_shipped(recipe: str, overrides: Sequence[str]) -> bool:
    """Whether a shipped recipe is named and no data is: what it names stands for the user's own."""
    from lalm.resources import list_shipped

    names_data = any(override.startswith(("data.", "data=")) for override in overrides)
    return (
        recipe in {form for file in list_shipped("recipes") for form in (Path(file).stem, f"recipes/{file}")}
        and not names_data
    )


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
    counts = ", ".join(f"{count} for {seconds:g} s" for seconds, count in plan.positions.items())
    table.add_row("projector", f"width {plan.state_width}", f"{counts}; width {plan.decoder_width}")
    table.add_row("audio positions", "", f"{plan.positions_per_second:.3g} for a second of audio")
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


def sizes_table(comparisons: dict[str, list[SizeComparison]]) -> Table:
    """What papers print, and ours; by recipe."""
    from rich.table import Table

    table = Table(title="The paper's sizes and ours", title_justify="left")
    for name in ("recipe", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("paper", "ours", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source, and why ours differs", overflow="fold")
    for recipe, rows in comparisons.items():
        for number, row in enumerate(rows):
            paper = f"{'< ' if row.size.at_most else ''}{row.size.value:,.10g}"
            style = None if row.agrees else "yellow" if row.is_explained else "red"
            notes = "; ".join(filter(None, (row.size.source, None if row.agrees else row.size.differs)))
            difference = "" if row.size.at_most else f"{row.difference:+.1%}"
            table.add_row(
                "" if number else recipe, row.describe(), paper, f"{row.ours:,}", difference, notes, style=style
            )
    return table


def stages_table(recipe: Recipe, memory: Sequence[StageMemory], dtype: str, *, knows_data: bool) -> Table:
    """Length of each stage, its largest micro-batch, and an estimate of the memory that it takes."""
    from rich.table import Table

    batches = "the data's largest micro-batch" if knows_data else "a micro-batch full of the longest clips"
    table = Table(title=f"Stages (estimated memory of one process in MiB; {batches}; frozen weights in {dtype})")
    table.title_justify = "left"
    for name in ("stage", "length"):
        table.add_column(name, no_wrap=True)
    for name in ("micro-batch", "weights", "gradients", "Adam", "activations", "all"):
        table.add_column(name, justify="right", no_wrap=True)
    for section, stage in zip(recipe.stages, memory, strict=True):
        sizes = (stage.weights, stage.gradients, stage.optimizer, stage.activations, stage.total)
        cells = (f"{size / 2**20:,.0f}" for size in sizes)
        shape = f"{stage.shape.rows} x {stage.shape.row_positions}"
        table.add_row(section.name, section.describe_budget(), shape, *cells)
    return table


def machines_table(planner: MachinePlanner, machines: Sequence[Machine]) -> Table:
    """Computed memory and time of the heaviest stage on each machine, by way."""
    from rich.table import Table

    table = Table(title=f"Computed for stage {planner.stage}, not measured", title_justify="left")
    for name in MACHINE_COLUMNS[:2]:
        table.add_column(name, no_wrap=True)
    for name in MACHINE_COLUMNS[2:]:
        table.add_column(name, justify="right", no_wrap=True)
    for machine in machines:
        for fit in planner.fits(machine):
            table.add_row(str(machine), *machine_cells(fit), style=None if fit.fits else "red")
    return table


MACHINE_COLUMNS = ("machine", "way", "GB a GPU", "GB of host a GPU", "fits", "hours for 100,000 records")


def machine_cells(fit: Fit) -> list[str]:
    """What the tables say of one way, in the order of `MACHINE_COLUMNS` without the machine."""
    hours = 100_000 / fit.records_per_second / 3600
    return [
        fit.way.name + (", checkpointing" if fit.checkpointing else ""),
        f"{fit.gpu_bytes / 2**30:.1f}",
        f"{fit.host_bytes / 2**30:.1f}" if fit.host_bytes else "-",
        "yes" if fit.fits else "no",
        "-" if not fit.fits else f"{hours:.1f}" if hours >= 0.05 else "< 0.1",
    ]


def machines_markdown(recipes: Sequence[Recipe], machines: Sequence[Machine]) -> str:
    """The README's table: of each recipe on each machine the fastest way that fits, and the leanest."""
    from lalm.data.state_cache import caches_states
    from lalm.model.machines import MachinePlanner

    columns = ("recipe", *MACHINE_COLUMNS[:4], MACHINE_COLUMNS[5])
    lines = [f"| {' | '.join(columns)} |", "|---|---|---" + "|---:" * 3 + "|"]
    for recipe in recipes:
        planner = MachinePlanner(recipe, live_encoder=not caches_states(recipe))
        for machine in machines:
            fits = planner.fits(machine)
            good = [fit for fit in fits if fit.fits]
            chosen = [max(good, key=lambda fit: fit.records_per_second)] if good else []
            leanest = min(good or fits, key=lambda fit: fit.gpu_bytes)
            for fit in [*chosen, *([leanest] if leanest not in chosen else [])]:
                cells = machine_cells(fit)
                cells[3:] = [cells[4] if fit.fits else "does not fit"]
                lines.append(f"| {' | '.join([recipe.name, str(machine), *cells])} |")
    return "\n".join(lines)


def batch_shapes(recipe: Recipe) -> dict[str, BatchShape] | None:
    """The largest micro-batch of each stage where the data and the tokenizer are at hand and the clips not too many."""
    from lalm.data.examples import clip_paths, load_records
    from lalm.resources import is_on_disk
    from lalm.training.batch_shapes import stage_shapes

    base = recipe.language_model.base
    if base != "random" and not is_on_disk(base):
        return None
    return stage_shapes(recipe) if len(clip_paths(load_records(recipe)[0])) <= MAX_PROBED_CLIPS else None


def describe_data(recipe: Recipe, plan: ModelPlan) -> str:
    """Records and audio of the training data, and the size that its encoder states would have on the disk."""
    from lalm.audio.io import probe_audio
    from lalm.data.examples import clip_paths, load_records
    from lalm.errors import AudioError

    streamed = [name for name, section in recipe.data.sources.items() if section.streamed]
    held = [name for name in recipe.data.sources if name not in streamed]
    if not held:
        return f"Data: streamed from {', '.join(streamed)}."
    records, dropped = load_records(recipe, sources=held)
    paths = clip_paths(records)
    probed, seconds, unreadable = paths[:: max(1, -(-len(paths) // MAX_PROBED_CLIPS))], 0.0, 0
    for path in probed:
        try:
            seconds += probe_audio(path).seconds
        except AudioError:
            unreadable += 1
    seconds *= len(paths) / max(len(probed), 1)
    text = f"Data: {len(records)} records on {len(paths)} clips, {seconds / 60:.1f} minutes of audio."
    if streamed:
        text += f" Besides, {', '.join(streamed)} is streamed."
    if dropped:
        text += f" {len(dropped)} records break the contract and are left out."
    if unreadable:
        text += f" {unreadable} of {len(probed)} clips cannot be read."
    if recipe.data.cache_states and all(stage.learning_rates.encoder is None for stage in recipe.stages):
        value_bytes = {"float16": 2, "bfloat16": 2, "float32": 4}[recipe.data.cache_dtype]
        size = seconds * plan.states_per_second * plan.state_width * value_bytes
        text += f" Their encoder states take about {size / 2**20:,.0f} MiB in the cache."
    return text
