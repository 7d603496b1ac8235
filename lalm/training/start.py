"""A run that starts from the weights of another one (`init: RUN`, `lalm train RECIPE --from-run RUN`)."""

from __future__ import annotations

from pathlib import Path

from lalm.errors import CheckpointError
from lalm.model.checkpoint import RECIPE, WEIGHTS, base_fingerprints, is_run_folder, read_manifest, trained_parts
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.recipe.load import load_recipe
from lalm.recipe.schema import Recipe
from lalm.training.stages import load_trained_tensors


def resolve_start(recipe: Recipe) -> Recipe:
    """The recipe with `init_parts` filled in from the run that it starts from; the recipe itself without `init`.

    Raises:
        CheckpointError: if `init` is no finished run, or stands on other base models or another adapter.
    """
    if recipe.init is None:
        return recipe
    run = recipe.init
    if not is_run_folder(run):
        raise CheckpointError(
            f"init: {run}: no trained model here (needs {WEIGHTS} and manifest.json). Name a run whose last stage is "
            "done; `lalm runs` lists them."
        )
    earlier = load_recipe(run / RECIPE)
    before, now = read_manifest(run)["bases"], base_fingerprints(recipe)
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            theirs, ours = (found.get(name, {}).get("base", "none") for found in (before, now))
            raise CheckpointError(
                f"init: {run}: was trained on {name} = {theirs}, this recipe has {ours}. Weights fit only the base "
                "models that they were trained on: name the same ones."
            )
    if any(base["base"] == "random" for base in now.values()) and earlier.seed != recipe.seed:
        raise CheckpointError(
            f"init: {run}: its random base models were made with seed {earlier.seed}, this recipe has {recipe.seed}."
        )
    ours, theirs = recipe.language_model.lora, earlier.language_model.lora
    if theirs is not None and ours != theirs:
        raise CheckpointError(f"init: {run}: its adapter is ({theirs}), this recipe's is ({ours}). Give it the same.")
    return recipe.model_copy(update={"init_parts": tuple(trained_parts(earlier))})


def load_start(model: LalmForConditionalGeneration, recipe: Recipe) -> None:
    """Puts the weights of `init` into a fresh model.

    Raises:
        CheckpointError: if a name or a shape differs.
    """
    if recipe.init is not None:
        parts = model.parts()
        names = [name for part in recipe.init_parts for name, _ in parts[part]]
        load_trained_tensors(model, Path(recipe.init) / WEIGHTS, names=names)
