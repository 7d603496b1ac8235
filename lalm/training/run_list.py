"""What run folders say of themselves, side by side. Reads their files only; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lalm.errors import LalmError, RecipeError
from lalm.recipe.diff import diff_recipes
from lalm.recipe.load import load_recipe
from lalm.recipe.schema import Recipe
from lalm.training.metrics import read_metrics

MEAN_OF_LAST = 20
"""The last loss that is shown is the mean over this many steps of the last stage."""
SCORES = ("accuracy", "wer")
"""The number of a task in metrics.json that stands for it, the first that is there."""


@dataclass(frozen=True)
class RunSummary:
    """One run folder."""

    path: Path
    recipe: Recipe
    stages_done: tuple[str, ...]
    steps: int
    last_loss: float | None
    training_seconds: float
    scores: dict[str, float] = field(default_factory=dict)
    """`TASK (accuracy)` or `TASK (wer)` -> the last evaluation's; empty where none was made."""

    @property
    def mean_accuracy(self) -> str:
        """`75 % over 3 tasks`, of the tasks that have an accuracy; empty where nothing was measured."""
        values = [value for name, value in self.scores.items() if name.endswith("(accuracy)")]
        return f"{sum(values) / len(values):.0%} over {len(values)} tasks" if values else ""

    @property
    def progress(self) -> str:
        """`2 of 3 (align, instruct)`."""
        names = f" ({', '.join(self.stages_done)})" if self.stages_done else ""
        return f"{len(self.stages_done)} of {len(self.recipe.stages)}{names}"


def find_runs(folder: Path) -> list[Path]:
    """Run folders directly below `folder`, by name."""
    return sorted(path.parent for path in folder.glob("*/recipe.yaml"))


def read_run(path: Path) -> RunSummary:
    """What a run folder holds.

    Raises:
        RecipeError: if it has no recipe.yaml, or one that cannot be read.
    """
    if not (path / "recipe.yaml").is_file():
        raise RecipeError(f"{path}: is no run folder (it has no recipe.yaml). `lalm runs` lists those in runs/.")
    recipe = load_recipe(path / "recipe.yaml")
    rows = read_metrics(path / "metrics.csv")
    of_last = [row["loss"] for row in rows if row["stage"] == rows[-1]["stage"]][-MEAN_OF_LAST:]
    return RunSummary(
        path=path,
        recipe=recipe,
        stages_done=tuple(s.name for s in recipe.stages if (path / "stages" / s.name / "done.json").is_file()),
        steps=len(rows),
        last_loss=sum(of_last) / len(of_last) if of_last else None,
        training_seconds=sum(row["seconds"] for row in rows),
        scores=_scores(path / "metrics.json"),
    )


def read_runs(paths: Sequence[Path]) -> tuple[list[RunSummary], list[str]]:
    """Summaries of the folders that can be read, and why the others cannot."""
    runs, problems = [], []
    for path in paths:
        try:
            runs.append(read_run(path))
        except LalmError as error:
            problems.append(str(error))
    return runs, problems


def recipe_differences(first: RunSummary, second: RunSummary) -> list[tuple[str, Any, Any]]:
    """(setting, in the first, in the second); where the runs are written is no difference."""
    found = diff_recipes(first.recipe, second.recipe)
    return [item for item in found if item[0] not in ("name", "output.folder")]


def measured_differences(first: RunSummary, second: RunSummary) -> list[tuple[str, Any, Any]]:
    """(what, in the first, in the second) of everything that was measured of either; None where one lacks it."""
    found: list[tuple[str, Any, Any]] = [
        ("stages done", first.progress, second.progress),
        ("steps", first.steps, second.steps),
        ("last loss", first.last_loss, second.last_loss),
        ("training seconds", first.training_seconds, second.training_seconds),
    ]
    tasks = dict.fromkeys([*first.scores, *second.scores])
    return found + [(task, first.scores.get(task), second.scores.get(task)) for task in tasks]


def _scores(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    tasks = json.loads(path.read_text(encoding="utf-8")).get("tasks", {})
    return {
        f"{name} ({key})": float(figures[key])
        for name, figures in tasks.items()
        for key in [next((key for key in SCORES if figures.get(key) is not None), None)]
        if key is not None
    }
