"""What evaluation shows in a terminal: a bar while it works, one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

YARDSTICKS = ("silent", "swapped", "majority", "chance", "probe")


@contextmanager
def bar(description: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar; what it yields is called with the number of items that were just finished."""
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(description, total=total)
        yield lambda finished: progress.advance(task, finished)


def metrics_table(metrics: Mapping[str, Any], title: str = "") -> Table:
    """One row a task: the model's figure, the yardsticks, and how many replies gave no answer."""
    table = Table(title=title or None, title_justify="left", header_style="bold", row_styles=("", "dim"))
    table.add_column("task")
    table.add_column("n", justify="right")
    table.add_column("model", justify="right")
    for name in YARDSTICKS:
        table.add_column(name, justify="right")
    table.add_column("no answer", justify="right")
    for task, figures in metrics["tasks"].items():
        no_answer = figures.get("unanswered", 0) + figures.get("unparsed", 0)
        table.add_row(
            task + ("  [dim](WER, less is better)[/]" if figures.get("metric") == "wer" else ""),
            str(figures["n"]),
            _model_cell(figures),
            *(percent(figures.get(name)) for name in YARDSTICKS),
            str(no_answer) if no_answer else "",
        )
    return table


def _model_cell(figures: Mapping[str, Any]) -> Text:
    """Green where the model beats every yardstick that hears nothing, red where one of them beats it."""
    lower_is_better = figures.get("metric") == "wer"
    value = figures["wer" if lower_is_better else "accuracy"]
    deaf = [figures[name] for name in ("silent", "swapped", "majority", "chance") if figures.get(name) is not None]
    gains = [other - value if lower_is_better else value - other for other in deaf]
    colour = "green" if all(gain > 0.1 for gain in gains) else "red" if min(gains) < 0 else "yellow"
    return Text(percent(value), style=f"bold {colour}" if gains else "bold")


def percent(value: float | None) -> str:
    """A share as "83.1 %"; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def forgotten_table(entry: Mapping[str, Any]) -> Table:
    """What an earlier run scored on its own held-out records, and what this one does."""
    table = Table(title=f"Kept of {entry['run']}", title_justify="left", header_style="bold")
    for name in ("task", "score", "n", "before", "after"):
        table.add_column(name, justify="left" if name in ("task", "score") else "right")
    for task, figures in entry.get("tasks", {}).items():
        table.add_row(task, figures["score"], str(figures["n"]), percent(figures["before"]), percent(figures["after"]))
    if "problem" in entry:
        table.caption = f"Not measured: {entry['problem']}"
    return table
