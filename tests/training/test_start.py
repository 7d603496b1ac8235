"""A run that starts from another run's weights, with replay of the old records, and what it forgot."""

from __future__ import annotations

import json

import pytest
from curricula import tiny_curriculum, write_records
from safetensors.torch import load_file
from typer.testing import CliRunner

from lalm.cli import app
from lalm.errors import CheckpointError
from lalm.model.checkpoint import load_run, verify_seals
from lalm.recipe.load import save_recipe
from lalm.training.start import resolve_start
from lalm.training.train import run_recipe

STAGE = {"learning_rates": {"projector": 0.01, "lora": 0.02}, "batch_records": 4, "steps": 3}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A finished run that trained projector, adapter and encoder, and the folder of its data."""
    folder = tmp_path_factory.mktemp("earlier")
    write_records(folder / "data")
    stage = {**STAGE, "name": "first", "learning_rates": {"projector": 0.01, "lora": 0.02, "encoder": 0.01}}
    run = run_recipe(tiny_curriculum(folder, "old", "ltu", f"stages={json.dumps([stage])}"))
    return folder, run


def later(folder, run, *overrides: str):
    """A recipe on new records, one part in five of the draws from the old ones."""
    sources = {
        "new": {"records": "train.jsonl", "tasks": ["caption"], "splits": ["train"]},
        "replay": {"records": "train.jsonl", "tasks": ["sound_name"], "splits": ["train"], "weight": 0.25},
    }
    stage = {**STAGE, "name": "second", "learning_rates": {"projector": 1e-9}, "steps": 1}
    return tiny_curriculum(folder, "new", "ltu", f"stages={json.dumps([stage])}",
                           f"data.sources={json.dumps(sources)}", f"init={run}", *overrides)  # fmt: skip


@pytest.mark.slow
def test_it_starts_from_all_that_the_earlier_run_trained(earlier, tmp_path):
    folder, old = earlier
    recipe = later(folder, old, f"output.folder={tmp_path / 'new'}")
    path = tmp_path / "later.yaml"
    save_recipe(recipe.model_copy(update={"init": None}), path)
    for _ in range(2):  # the second finds everything done
        done = CliRunner().invoke(app, ["train", str(path), "--from-run", str(old)], catch_exceptions=False)
        assert done.exit_code == 0
    before, after = (load_file(run / "trained.safetensors") for run in (old, tmp_path / "new"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor - after[name]).abs().max() < 1e-7, name
    assert any(name.startswith("audio_tower.") for name in after)
    assert all(holds for _, holds, _ in verify_seals(tmp_path / "new"))
    assert load_run(tmp_path / "new")[2].init_parts == ("encoder", "projector", "lora")

    for lora_scale in ("1", "0"):
        arguments = ["evaluate", str(tmp_path / "new"), "evaluation.splits=[train]", "--lora-scale", lora_scale]
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
        metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
        (entry,) = metrics["forgotten"]
        assert entry["run"] == str(old)
        assert set(entry["tasks"]) == {"sound_name", "transcription", "caption", "story"}
        for figures in entry["tasks"].values():
            assert figures["n"] == 1
            # A rate of 1e-9 forgets nothing; without its adapter the model may.
            assert lora_scale == "0" or figures["before"] == figures["after"]
        assert "What was kept of" in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("language_model.lora.rank=3", r"its adapter is \(rank=2 .* this recipe's is \(rank=3"),
        ("seed=5", "random base models were made with seed 0, this recipe has 5"),
        ("init={folder}/data", r"data: no trained model here \(needs trained\.safetensors"),
    ],
)
def test_a_run_that_it_cannot_start_from_is_refused(earlier, override, message):
    folder, run = earlier
    with pytest.raises(CheckpointError, match=message):
        resolve_start(later(folder, run, override.format(folder=folder)))
