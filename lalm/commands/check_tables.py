"""The tables of `lalm check`: rates, parameters, stages, the paper's sizes, machines, all recipes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from lalm.model.machines import Fit, Machine, MachinePlanner
    from lalm.model.planned import ModelPlan, StageMemory
    from lalm.model.published_sizes import SizeComparison
    from lalm.recipe.schema import Recipe
    from lalm.training.recipe_plan import RecipePlan


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


def all_table(rows: Mapping[str, tuple[RecipePlan | None, float]]) -> Table:
    """A line for each recipe: its plan, None where there is none, and the seconds that checking it took."""
    from rich.table import Table

    table = Table(title="Every recipe (parameters in millions; memory of one process in GiB, estimated)")
    table.title_justify = "left"
    table.add_column("recipe", no_wrap=True)
    for name in ("pos./s", "size", "trains", "GiB", "took"):
        table.add_column(name, justify="right")
    for name, (plan, seconds) in rows.items():
        if plan is None:
            table.add_row(name, *"----", f"{seconds:.1f} s", style="red")
            continue
        table.add_row(
            name,
            f"{plan.model.positions_per_second:.3g}",
            f"{plan.model.num_parameters / 1e6:,.0f}",
            f"{plan.model.stages[-1].num_trained / 1e6:,.1f}",
            f"{max(stage.total for stage in plan.memory) / 2**30:,.1f}",
            f"{seconds:.1f} s",
            style="red" if plan.model.problems else None,
        )
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
