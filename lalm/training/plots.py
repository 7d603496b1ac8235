"""`loss.png`: the loss of every step and its running mean, stage after stage."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from lalm.training.metrics import read_metrics

SMOOTHING = 0.95
"""Weight of the past in the running mean; it is corrected for its start."""


def smoothed(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential running mean of a curve; the first value is the first mean."""
    means, total, norm = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        means.append(total / norm)
    return means


def plot_loss(metrics_file: Path, image: Path) -> bool:
    """Draws the curve; False where matplotlib is not installed or nothing was trained."""
    rows = read_metrics(metrics_file)
    if not rows or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for number, stage in enumerate(stages):
        mine = [row for row in rows if row["stage"] == stage]
        steps, losses = [row["global_step"] for row in mine], [row["loss"] for row in mine]
        colour = f"C{number}"
        axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(steps, smoothed(losses), color=colour, linewidth=1.8, label=stage)
        if number:
            axes.axvline(steps[0] - 0.5, color="0.6", linestyle="--", linewidth=0.8)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss a supervised token")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    temporary = image.with_name(f".{image.stem}.tmp.png")
    figure.savefig(temporary, dpi=120)
    os.replace(temporary, image)
    return True
