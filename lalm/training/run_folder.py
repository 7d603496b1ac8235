"""The folder of a run: its recipe, its stages, and which of them are done.

runs/NAME/
    recipe.yaml  metrics.csv  loss.png
    stages/STAGE/done.json  trained.safetensors  checkpoint-N/
    trained.safetensors  manifest.json  ...     after the last stage: what `load_run` reads
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalm.errors import CheckpointError, RecipeError
from lalm.recipe.diff import diff_recipes
from lalm.recipe.load import load_recipe, save_recipe
from lalm.recipe.schema import Recipe
from lalm.training.checkpoints import TRAINED, find_checkpoints, write_json

FREE_TO_CHANGE = (
    "description",
    "data.build",
    "data.folder",
    "evaluation",
    "generation",
    "output",
    "stages.*.log_every_steps",
    "stages.*.save_every_steps",
)
"""What a resumed run may change: nothing of it reaches a weight."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def loss_image(self) -> Path:
        return self.path / "loss.png"

    def stage(self, name: str) -> Path:
        """Where a stage keeps its checkpoints."""
        return self.path / "stages" / name

    def stage_weights(self, name: str) -> Path:
        """What a finished stage trained."""
        return self.stage(name) / TRAINED

    def is_done(self, name: str) -> bool:
        """Whether the stage was trained to its end."""
        return (self.stage(name) / "done.json").is_file() and self.stage_weights(name).is_file()

    def done(self, name: str) -> dict[str, Any]:
        """What a finished stage left of itself: steps, loss, records and more."""
        return read_json(self.stage(name) / "done.json")

    def mark_done(self, name: str, facts: Mapping[str, Any]) -> None:
        """Written last: from now on the stage is skipped."""
        write_json(self.stage(name) / "done.json", dict(facts))

    def last_checkpoint(self, name: str) -> Path | None:
        """Where the stage goes on."""
        found = find_checkpoints(self.stage(name))
        return found[-1] if found else None

    def forget(self, names: Collection[str]) -> None:
        """Removes all that these stages left."""
        for name in names:
            shutil.rmtree(self.stage(name), ignore_errors=True)


def check_recipe_unchanged(run: RunFolder, recipe: Recipe, allow_changes: Collection[str] = ()) -> None:
    """Compares the recipe with the one that the run was started with.

    `allow_changes`: dotted names, or beginnings of them, that may differ (`stages`, `stages.align.steps`).

    Raises:
        RecipeError: if something else differs; every difference is shown.
    """
    if not run.recipe_file.is_file():
        return
    before = load_recipe(run.recipe_file)
    allowed = (*FREE_TO_CHANGE, *allow_changes)
    found = [item for item in diff_recipes(before, recipe) if not _is_allowed(item[0], allowed)]
    if found:
        lines = "\n".join(f"  {key}: {old!r} -> {new!r}" for key, old, new in found)
        names = " ".join(sorted({key.split(".")[0].removesuffix(" (order)") for key, _, _ in found}))
        raise RecipeError(
            f"{run.path}: was started with another recipe:\n{lines}\n"
            f"Undo the change, give the run another name, start over (--no-resume), or allow it "
            f"(--allow-change {names})."
        )


def start_over(run: RunFolder) -> None:
    """Removes what training wrote into the folder, and nothing else."""
    shutil.rmtree(run.path / "stages", ignore_errors=True)
    for path in (run.metrics_file, run.loss_image, run.recipe_file, run.path / TRAINED, run.path / "manifest.json"):
        path.unlink(missing_ok=True)


def write_recipe(run: RunFolder, recipe: Recipe) -> None:
    """The resolved recipe, beside what it trains."""
    run.path.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, run.recipe_file)


def read_json(path: Path) -> dict[str, Any]:
    """A file that `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def require_done(run: RunFolder, names: Collection[str], wanted: str) -> None:
    """Raises `CheckpointError` unless all stages before `wanted` are done."""
    missing = [name for name in names if not run.is_done(name)]
    if missing:
        raise CheckpointError(
            f"{run.path}: stage '{wanted}' starts from '{missing[-1]}', which is not done. Train it first: "
            f"lalm train RECIPE --until {missing[-1]}"
        )


def _is_allowed(key: str, allowed: Collection[str]) -> bool:
    parts = key.removesuffix(" (order)").split(".")
    for name in allowed:
        wanted = name.split(".")
        if len(wanted) <= len(parts) and all(w in ("*", p) for w, p in zip(wanted, parts, strict=False)):
            return True
    return False
