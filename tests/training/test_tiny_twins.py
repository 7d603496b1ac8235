"""The tiny twin of every published system trains through its stages, is saved and loaded, and answers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from lalm.audio.io import load_audio
from lalm.data.invented import write_invented
from lalm.data.records import Turn
from lalm.inference.generate import Request, generate_answers
from lalm.model.checkpoint import load_run, verify_seals
from lalm.recipe.load import load_recipe
from lalm.resources import list_shipped
from lalm.training.metrics import read_metrics
from lalm.training.run_folder import RunFolder
from lalm.training.train import run_recipe

SYSTEMS = [Path(file).stem for file in list_shipped("recipes") if load_recipe(Path(file).stem).system is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_twin_trains_saves_loads_and_generates(name, tmp_path):
    places = [f"data.folder={tmp_path / 'data'}", f"output.folder={tmp_path / 'run'}"]
    recipe = load_recipe(name, places, tiny=True)
    write_invented(recipe)
    run_recipe(recipe, console=Console(file=io.StringIO()))
    folder = RunFolder(tmp_path / "run")
    for stage in recipe.stages:
        assert folder.is_done(stage.name)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert len(rows) == 2 * len(recipe.stages)
    assert np.isfinite([float(row["loss"]) for row in rows]).all()

    assert all(holds for _, holds, _ in verify_seals(tmp_path / "run")), (
        "loaded, it has not the logits it was saved with"
    )
    model, processor, loaded = load_run(tmp_path / "run", device="cpu")
    assert loaded == recipe
    clips = [load_audio(tmp_path / "data" / f"clips/{number}.wav", processor.sampling_rate) for number in (0, 1)]
    asked = [Request((Turn(role="user", content="What is heard?"),), (clip,)) for clip in clips]
    options = recipe.generation.model_copy(update={"max_new_tokens": 4})
    together = generate_answers(model, processor, asked, options)
    assert together == [generate_answers(model, processor, [request], options)[0] for request in asked]


@pytest.mark.slow
def test_what_a_stage_freezes_stays_as_it_was(tmp_path):
    """LTU-AS: first the linear layer alone, then the rest of the projector and the adapter join."""
    places = [f"data.folder={tmp_path / 'data'}", f"output.folder={tmp_path / 'run'}"]
    recipe = load_recipe("ltu_as", places, tiny=True)
    write_invented(recipe)
    run_recipe(recipe, until="connect", console=Console(file=io.StringIO()))
    first = {name: value.clone() for name, value in load_run(tmp_path / "run", device="cpu")[0].named_parameters()}
    run_recipe(recipe, until="labels", console=Console(file=io.StringIO()))
    second = dict(load_run(tmp_path / "run", device="cpu")[0].named_parameters())
    changed = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert any("along_time" in name for name in changed)
    assert any(".lora_B." in name for name in changed)
    assert not any(name.startswith("audio_tower.") for name in changed)
