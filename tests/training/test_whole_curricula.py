"""Tiny SALMONN and LTU curricula from start to end, in one process and several, whole and killed ten times."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from curricula import CURRICULA, tiny_curriculum, write_records
from fork_server import kills
from safetensors.torch import load_file

from lalm.training.metrics import read_metrics

pytestmark = pytest.mark.slow(seconds=40)
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
ZERO_2, ZERO_3 = ([f"deepspeed={{zero_optimization: {{stage: {stage}}}}}"] for stage in (2, 3))
RESUMED = 1e-6
CUT = 2e-5
"""Losses near 6 of the same steps, cut for other numbers of processes: float32 sums in another order differ by a few
units in the last place (5e-7 each), and every optimizer step carries them on."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_records(tmp_path / "data")
    return tmp_path


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.csv")]


def held_out(run: Path) -> list[float]:
    return [row["held_out_loss"] for row in read_metrics(run / "metrics.csv") if row["held_out_loss"] is not None]


@pytest.mark.parametrize(
    ("curriculum", "processes", "overrides"),
    [
        pytest.param("salmonn", 1, [], id="salmonn-1"),
        pytest.param("ltu", 1, [], id="ltu-1"),
        pytest.param("salmonn", 2, ZERO_2, id="salmonn-2-zero2", marks=needs_deepspeed),
        pytest.param("ltu", 2, ZERO_3, id="ltu-2-zero3", marks=needs_deepspeed),
    ],
)
def test_killed_at_ten_points_and_resumed_is_never_killed(runs, folder, curriculum, processes, overrides):
    """All processes, or one of them, die at steps, before a checkpoint gets its name, and before a stage is done."""
    whole, killed = (tiny_curriculum(folder, name, curriculum, *overrides) for name in ("whole", "killed"))
    runs(whole, processes)
    stages = [(stage.name, stage.steps) for stage in killed.stages]
    for death in kills(stages, 10, seed=processes, processes=processes):
        runs(killed, processes, fails=True, die=death)
    runs(killed, processes)
    expected = losses(whole.run_folder())
    assert len(expected) == sum(steps for _, steps in stages)
    assert losses(killed.run_folder()) == pytest.approx(expected, abs=RESUMED)
    assert held_out(killed.run_folder()) == pytest.approx(held_out(whole.run_folder()), abs=RESUMED)
    ours, theirs = (load_file(recipe.run_folder() / "trained.safetensors") for recipe in (killed, whole))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert (ours[name] - theirs[name]).abs().max() <= (0 if processes == 1 else RESUMED), name


@pytest.mark.parametrize(
    ("curriculum", "launches"),
    [
        ("salmonn", {"two": (2, []), "four": (4, []), "zero2": (2, ZERO_2)}),
        ("ltu", {"zero3": (2, ZERO_3), "four": (4, ZERO_3)}),
    ],
)
@needs_deepspeed
def test_one_two_and_four_processes_train_alike(runs, folder, curriculum, launches):
    """The same recipe and global batch; without dropout, which each process draws for itself."""
    one = tiny_curriculum(folder, "one", curriculum, dropout=0.0)
    runs(one)
    expected = load_file(one.run_folder() / "trained.safetensors")
    for name, (processes, overrides) in launches.items():
        recipe = tiny_curriculum(folder, name, curriculum, *overrides, dropout=0.0)
        runs(recipe, processes)
        assert losses(recipe.run_folder()) == pytest.approx(losses(one.run_folder()), abs=CUT), name
        assert held_out(recipe.run_folder()) == pytest.approx(held_out(one.run_folder()), abs=CUT), name
        found = load_file(recipe.run_folder() / "trained.safetensors")
        assert found.keys() == expected.keys()
        assert max(float((found[key] - expected[key]).abs().max()) for key in expected) < 1e-3, name


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_a_stage_changes_its_parts_and_no_other_tensor(runs, folder, curriculum):
    """Every tensor before and after every stage. (A bias of keys shifts all scores of a query alike: no gradient.)"""
    recipe = tiny_curriculum(folder, "run", curriculum)
    runs(recipe, snapshots=str(folder / "snapshots"))
    for stage in recipe.stages:
        before, after = (
            load_file(folder / "snapshots" / f"{stage.name}-{moment}.safetensors") for moment in ("before", "after")
        )
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        rates = stage.learning_rates.model_dump()
        parts = {"projector": "multi_modal_projector.", "encoder": "audio_tower.", "lora": "language_model."}
        for name in before:
            part = next((part for part, start in parts.items() if name.startswith(start)), None)
            if part == "lora" and "lora_" not in name:
                part = "language_model"
            # One query that attends to itself alone has nothing to choose from.
            is_idle = any(part in name for part in (".k_proj.bias", ".key.bias", ".attention.attention.query.bias"))
            if rates[part] is None:
                assert name not in changed, f"{stage.name}: {name}"
            elif not is_idle:
                assert name in changed, f"{stage.name}: {name}"
