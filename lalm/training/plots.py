"""`loss.png`: the loss of every step, what it is made of, and the gradient norm of each part."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lalm.training.metrics import read_metrics

SMOOTHING = 0.95
"""Weight of the past in the running mean; it is corrected for its start."""
PANELS = (
    ("loss by task and source", ("loss/task/", "loss/source/")),
    ("loss by objective", ("loss/objective/",)),
    ("gradient norm by part", ("grad_norm/",)),
)
"""Title and beginnings of the columns of the panels below the loss; one of a single curve is left out."""

PANEL_INCHES, GAP_INCHES = (8.2, 3.0), 0.6
"""Width and height of a panel, and what is between two; matplotlib would take as long as for drawing to find them."""
NUM_COLOURS, LINE_STYLES = 10, ("-", "--", ":")
"""matplotlib begins its colours again after so many curves; then the lines are others."""
MARGINS_INCHES = (0.65, 0.15, 0.5, 0.35)
"""Left, right, bottom, top."""


def smoothed(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential running mean of a curve; the first value is the first mean."""
    means, total, norm = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        means.append(total / norm)
    return means


def plot_loss(metrics_file: Path, image: Path) -> bool:
    """Draws the curves; False where matplotlib is not installed or nothing was trained."""
    rows = read_metrics(metrics_file)
    if not rows or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(title, names) for title, starts in PANELS if len(names := panel_columns(rows, starts)) > 1]
    count = 1 + len(panels)
    left, right, bottom, top = MARGINS_INCHES
    width, height = left + PANEL_INCHES[0] + right, bottom + count * PANEL_INCHES[1] + (count - 1) * GAP_INCHES + top
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        *(left / width, bottom / height, 1 - right / width, 1 - top / height), hspace=GAP_INCHES / PANEL_INCHES[1]
    )
    first, *others = figure.subplots(count, squeeze=False)[:, 0]
    _draw_loss(first, rows)
    for axes, (title, names) in zip(others, panels, strict=True):
        for number, name in enumerate(names):
            found = [(row["global_step"], row[name]) for row in rows if row.get(name) is not None]
            steps, values = zip(*found, strict=True)
            style = LINE_STYLES[number // NUM_COLOURS % len(LINE_STYLES)]
            axes.plot(steps, smoothed(values), style, linewidth=1.2, label=name.partition("/")[2])
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=7, ncols=3)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    figure.axes[-1].set_xlabel("optimizer step")
    temporary = image.with_name(f".{image.stem}.tmp.png")
    figure.savefig(temporary, dpi=120)
    os.replace(temporary, image)
    return True


def panel_columns(rows: Sequence[Mapping[str, Any]], starts: Sequence[str]) -> list[str]:
    """Columns that begin like this and hold a number somewhere, in the order of the file."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    return [name for name in names if name.startswith(tuple(starts))]


def _draw_loss(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for number, stage in enumerate(stages):
        mine = [row for row in rows if row["stage"] == stage]
        steps, losses = [row["global_step"] for row in mine], [row["loss"] for row in mine]
        colour = f"C{number}"
        axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(steps, smoothed(losses), color=colour, linewidth=1.8, label=stage)
        measured = [(row["global_step"], row["held_out_loss"]) for row in mine if row["held_out_loss"] is not None]
        if measured:
            axes.plot(*zip(*measured, strict=True), "o--", color=colour, markersize=4, label=f"{stage}, held out")
        if number:
            axes.axvline(steps[0] - 0.5, color="0.6", linestyle="--", linewidth=0.8)
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
