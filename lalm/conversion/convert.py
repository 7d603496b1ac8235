"""A released checkpoint -> a run folder of ours, which `lalm chat` and `from_pretrained` load like a trained one.

convert_checkpoint(load_recipe("salmonn_13b"), Path("salmonn_v1.pth"), Path("runs/salmonn_13b"))
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from lalm.conversion.gama import GAMA
from lalm.conversion.layout import Layout, to_ours, to_theirs
from lalm.conversion.ltu import LTU
from lalm.conversion.salmonn import SALMONN
from lalm.errors import CheckpointError
from lalm.model.build import build_model
from lalm.model.checkpoint import save_trained
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.recipe.schema import Recipe

LAYOUTS: dict[str, Layout] = {"salmonn": SALMONN, "ltu": LTU, "gama": GAMA}
"""What a recipe's `system.official_weights` names."""
STAGE = "released"
"""What the manifest of a converted checkpoint calls its stage."""


def convert_checkpoint(recipe: Recipe, checkpoint: Path, folder: Path) -> LalmForConditionalGeneration:
    """Writes `folder` from a released checkpoint of the recipe's system, whole or not at all; gives the model.

    The base models that the recipe names must be on this machine: the checkpoint holds what was trained on them. An
    encoder that was trained is in the checkpoint, which is then its base, and the run keeps needing that file.

    Raises:
        CheckpointError: if the system has no known layout, `folder` exists, the file cannot be read without running
            code of its own, or one of its tensors is missing, left over or of another shape.
    """
    layout = layout_of(recipe)
    if folder.exists():
        raise CheckpointError(f"{folder}: is there already. Name another folder, or remove it.")
    official = read_official(checkpoint)
    recipe = released_recipe(recipe, layout, checkpoint)
    model, processor = build_model(recipe)
    if "encoder" in layout.parts:
        model.audio_tower.float()  # frozen ones may be held in less, and these are weights to keep
    load_official(model, official, layout, str(checkpoint))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_trained(temporary, model, processor, recipe, stage=STAGE)
        temporary.chmod(0o755)  # mkdtemp's folders are their owner's alone
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return model


def layout_of(recipe: Recipe) -> Layout:
    """The layout of the released weights of a recipe's system.

    Raises:
        CheckpointError: if there is none, or a stage of the recipe trains a part that it does not hold.
    """
    name = recipe.system.official_weights if recipe.system else "no"
    if name not in LAYOUTS:
        raise CheckpointError(
            f"recipe {recipe.name}: system.official_weights is '{name}': no released weights can be read for it. "
            f"Layouts that can: {', '.join(LAYOUTS)}."
        )
    return LAYOUTS[name]


def released_recipe(recipe: Recipe, layout: Layout, checkpoint: Path) -> Recipe:
    """The recipe of the network that the released weights were trained in, its encoder out of the checkpoint."""
    value = recipe.model_dump(mode="json")
    value["projector"] |= layout.projector_settings
    if "encoder" in layout.parts:
        value["encoders"][0] |= {**layout.encoder_settings, "base": str(checkpoint.resolve())}
    return Recipe.model_validate(value)


def read_official(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of an official `.pt`, `.pth` or `.bin` file by their names, without running code from it.

    Raises:
        CheckpointError: if it cannot be read, or holds no tensors by name.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises unpickling, zip, end-of-file and runtime errors here
        raise CheckpointError(
            f"{checkpoint}: cannot be read as a checkpoint of tensors alone ({type(error).__name__}: {error})"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{checkpoint}: holds no tensors by name, nor a 'model' that does. Is it the right file?")
    return content


def held_state(model: LalmForConditionalGeneration, layout: Layout) -> dict[str, Tensor]:
    """The tensors of our model that the layout's checkpoints hold, by our names."""
    parts = model.parts()
    return {name: value for part in layout.parts for name, value in parts[part]}


def load_official(
    model: LalmForConditionalGeneration, official: dict[str, Tensor], layout: Layout, where: str = "the checkpoint"
) -> None:
    """Puts released tensors into the model. Raises `CheckpointError` as `to_ours`; the model is then as it was."""
    held = held_state(model, layout)
    state = to_ours(official, held, layout, where)
    with torch.no_grad():
        for name, parameter in held.items():
            parameter.copy_(state[name])


def official_state(model: LalmForConditionalGeneration, layout: Layout) -> dict[str, Tensor]:
    """The model's tensors as the published code would save them."""
    return to_theirs(held_state(model, layout), layout)
