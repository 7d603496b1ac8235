"""`lalm evaluate`: measures a run on held-out records, beside its yardsticks."""

from __future__ import annotations

from typing import Annotated

import typer

from lalm.commands.arguments import OverridesArgument, RunArgument


def evaluate(
    run: RunArgument,
    overrides: OverridesArgument = None,
    max_records_per_task: Annotated[
        int | None, typer.Option(min=1, help="Measure on a sample of at most so many records of each task.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Questions answered together.")] = None,
    lora_scale: Annotated[
        float | None,
        typer.Option(min=0.0, help="A factor on the adapter: 0 is the plain language model, 1 as trained."),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write report.html with the table, curves and playable examples.")
    ] = True,
) -> None:
    """Evaluate a run: accuracy or WER of each task, with silence, another clip, majority, chance and probe beside."""
    from lalm.evaluation.runner import evaluate_run

    changes = list(overrides or ())
    if lora_scale is not None:
        changes.append(f"generation.lora_scale={lora_scale}")
    evaluate_run(
        run,
        overrides=changes,
        max_records_per_task=max_records_per_task,
        batch_size=batch_size,
        report=report,
    )
