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

from lalm.data.dataset import build_stage_data
from lalm.data.examples import open_clips
from lalm.model.build import build_model
from lalm.training.checkpoints import find_checkpoints
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
        pytest.param({"zero_optimization": {"stage": 3}}, id="zero3", marks=needs_deepspeed),
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


def without_dropout(make_recipe) -> dict:
    return {**make_recipe().model_dump(mode="json")["language_model"], "lora": {"rank": 4, "dropout": 0.0}}


def torchrun(num_processes: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}")


def test_four_processes_train_three_objectives_as_one_does(make_recipe, tmp_path):
    """Texts and clips are gathered from all processes, records count alike: the losses of one process, to float32's
    order of summation."""
    stage = {
        "name": "align",
        "objectives": {"language_model": 1.0, "contrastive": 0.5, "matching": 0.5},
        "contrastive_direction": "both",
        "loss_per": "record",
        "learning_rates": {"projector": 0.01, "lora": 0.01, "heads": 0.01},
        "steps": 4,
        "batch_records": 8,
        "micro_batch_tokens": 600,
    }
    one, four = (
        make_recipe(name, language_model=without_dropout(make_recipe), stages=[stage]) for name in ("one", "four")
    )
    finish(start(write(one, tmp_path)))
    finish(start(write(four, tmp_path), *torchrun(4)))
    assert losses(four.run_folder()) == pytest.approx(losses(one.run_folder()), abs=5e-5)
    ours, theirs = (read_metrics(recipe.run_folder() / "metrics.csv") for recipe in (four, one))
    for a, b in zip(ours, theirs, strict=True):
        for name in ("loss/objective/contrastive", "loss/objective/matching", "loss/task/Pitch", "grad_norm"):
            assert a[name] == pytest.approx(b[name], abs=2e-4), name


@needs_deepspeed
def test_a_process_with_text_alone_holds_up_nobody(make_recipe, tmp_path):
    """ZeRO-3 gathers the projector in every process; one whose micro-batch has no clip sends silence through it."""
    path = tmp_path / "data" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        if number % 2:
            line["audio"] = []
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    base = make_recipe().model_dump(mode="json")
    stage = {"name": "mixed", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 6, "batch_records": 2}
    data = {**base["data"], "packing": "rows"}
    block = {"zero_optimization": {"stage": 3}}
    one, two = (
        make_recipe(name, language_model=without_dropout(make_recipe), stages=[stage], data=data, deepspeed=settings)
        for name, settings in (("one", None), ("two", block))
    )
    _, processor = build_model(one)
    shares = build_stage_data(two, 0, processor, open_clips(two, processor.sampling_rate), world_size=2)
    hears = [any(shares.examples[index].clips for index in batch) for batch in shares.plan]
    assert any(first != second for first, second in zip(hears[::2], hears[1::2], strict=True))
    finish(start(write(one, tmp_path)))
    finish(start(write(two, tmp_path), *torchrun(2)))
    assert losses(two.run_folder()) == pytest.approx(losses(one.run_folder()), abs=5e-5)


def test_a_process_that_dies_leaves_a_usable_checkpoint(make_recipe, tmp_path):
    """One process of two is killed outright: the run ends, and the same command goes on from the last checkpoint."""
    stages = longer(make_recipe().model_dump(mode="json"))[:1]
    run, twin = (make_recipe(name, stages=stages) for name in ("killed", "twin"))
    finish(start(write(twin, tmp_path), *torchrun(2)))
    process = start(write(run, tmp_path), *torchrun(2))
    metrics = run.run_folder() / "metrics.csv"
    until = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None and num_rows(metrics) < 20 and time.monotonic() < until:
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=STARTUP_SECONDS)
    assert process.returncode != 0
    assert find_checkpoints(run.run_folder() / "stages" / "align")
    finish(start(write(run, tmp_path), *torchrun(2)))
    assert losses(run.run_folder()) == losses(twin.run_folder())
