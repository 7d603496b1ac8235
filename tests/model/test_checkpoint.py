"""A run folder: loaded as saved, and refused when it or a base is not what it was."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lalm import LalmForConditionalGeneration
from lalm.errors import CheckpointError
from lalm.model import checkpoint
from lalm.model.build import build_model
from lalm.model.checkpoint import WEIGHTS, load_run, save_trained, trained_state, verify_seals


@pytest.fixture
def run(tiny_recipe, tmp_path):
    model, processor = build_model(tiny_recipe)
    with torch.no_grad():
        for name, parameter in model.parts()["lora"]:
            if "lora_B" in name:
                parameter.normal_()
    save_trained(tmp_path / "run", model, processor, tiny_recipe, stage="align")
    return tmp_path / "run", model, tiny_recipe


def test_only_trained_parts_are_saved_and_they_come_back(run):
    folder, model, recipe = run
    saved = load_file(folder / WEIGHTS)
    assert all("multi_modal_projector" in name or ".lora_" in name for name in saved)
    loaded, _, again = load_run(folder)
    assert again == recipe
    for name, value in trained_state(loaded, recipe).items():
        assert torch.equal(value, trained_state(model, recipe)[name])
    assert isinstance(LalmForConditionalGeneration.from_pretrained(folder), LalmForConditionalGeneration)


def test_seals_hold_until_the_weights_change(run):
    folder, *_ = run
    assert all(holds for _, holds, _ in verify_seals(folder))
    state = load_file(folder / WEIGHTS)
    save_file({name: value + 0.5 for name, value in state.items()}, folder / WEIGHTS)
    assert [holds for name, holds, _ in verify_seals(folder) if name == "golden logits"] == [False]


def test_another_base_is_refused(run, monkeypatch):
    folder, *_ = run
    manifest = json.loads((folder / "manifest.json").read_text())
    bases = {name: {"base": "other", "fingerprint": "0" * 64} for name in manifest["bases"]}
    monkeypatch.setattr(checkpoint, "base_fingerprints", lambda recipe: bases)
    with pytest.raises(CheckpointError, match=r"encoders\[0\] \(other\) is not the model it was trained on"):
        load_run(folder)


@pytest.mark.parametrize("damage", ["missing", "left over", "shape", "cut"])
def test_a_damaged_checkpoint_is_refused(run, damage):
    folder, *_ = run
    state = load_file(folder / WEIGHTS)
    name = sorted(state)[0]
    if damage == "missing":
        del state[name]
    elif damage == "left over":
        state["surplus"] = torch.zeros(1)
    elif damage == "shape":
        state[name] = torch.zeros(3, 3, 3)
    save_file(state, folder / WEIGHTS)
    if damage == "cut":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read" if damage == "cut" else "does not fit the recipe"):
        load_run(folder)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no trained model here"):
        load_run(tmp_path)
