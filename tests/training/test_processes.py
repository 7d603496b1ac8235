"""Runs as processes of their own: killed by SIGKILL and started again, and two at once under torchrun."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lalm.training.metrics import read_metrics

pytestmark = pytest.mark.slow
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None or shutil.which("c++") is None,
    reason="needs deepspeed, which builds its CPU kernels with a C++ compiler",
)
PROGRAM = (
    "import sys; from lalm.recipe.load import load_recipe; from lalm.training.train import run_recipe; "
    "run_recipe(load_recipe(sys.argv[1]))"
)
STARTUP_SECONDS = 240


def write(recipe, folder: Path) -> Path:
    path = folder / f"{recipe.run_folder().name}.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")), encoding="utf-8")
    return path


def start(recipe_file: Path, *launcher: str) -> subprocess.Popen:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    program = recipe_file.with_suffix(".py")
    program.write_text(PROGRAM, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, *launcher, str(program), str(recipe_file)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=STARTUP_SECONDS)
    assert process.returncode == 0, output[-4000:]


def num_rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")]


def longer(recipe_values: dict) -> list[dict]:
    return [{**stage, "steps": 60, "save_every_steps": 7} for stage in recipe_values["stages"]]


def test_sigkill_at_random_points(make_recipe, tmp_path):
    stages = longer(make_recipe().model_dump(mode="json"))
    twin, run = make_recipe("twin", stages=stages), make_recipe("killed", stages=stages)
    finish(start(write(twin, tmp_path)))
    file, metrics = write(run, tmp_path), run.run_folder() / "metrics.csv"
    points = random.Random(3)
    num_kills = 0
    for _ in range(3):
        process = start(file)
        wanted = num_rows(metrics) + points.randint(10, 30)
        until = time.monotonic() + STARTUP_SECONDS
        while process.poll() is None and num_rows(metrics) < wanted and time.monotonic() < until:
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            num_kills += 1
        process.communicate()
    assert num_kills >= 2
    finish(start(file))
    assert losses(run.run_folder()) == losses(twin.run_folder())
    ours, theirs = (load_file(recipe.run_folder() / "trained.safetensors") for recipe in (run, twin))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "deepspeed",
    [
        pytest.param(None, id="ddp"),
        pytest.param({"zero_optimization": {"stage": 2}}, id="zero2", marks=needs_deepspeed),
    ],
)
def test_two_processes_train_the_recipe(make_recipe, tmp_path, deepspeed):
    """A recipe under torchrun, unchanged: the losses of one process, to float32's order of summation."""
    base = make_recipe().model_dump(mode="json")
    language_model = {**base["language_model"], "lora": {"rank": 4, "dropout": 0.0}}
    one, two = (make_recipe(name, language_model=language_model, deepspeed=block)
                for name, block in (("one", None), ("two", deepspeed)))  # fmt: skip
    finish(start(write(one, tmp_path)))
    finish(start(write(two, tmp_path), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    assert losses(two.run_folder()) == pytest.approx(losses(one.run_folder()), abs=2e-5)
    ours, theirs = (load_file(recipe.run_folder() / "trained.safetensors") for recipe in (one, two))
    for name in theirs:
        assert (ours[name] - theirs[name]).abs().max() < 1e-3, name
