"""Two real gloo processes, with and without DeepSpeed: one process's losses, and exact resume after a kill."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from distributed_worker import main as train_here
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("distributed_worker.py")
ZERO_3 = {"zero_optimization": {"stage": 3}}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None or shutil.which("c++") is None,
    reason="needs deepspeed, which builds its CPU kernels with a C++ compiler",
)
TOLERANCE = 2e-6
"""Losses are sums in another order: a few units in the last place of float32 at values near 2.5."""


def launch(folder: Path, processes: int, **options) -> int:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_SKIP_CUDA_CHECK": "1"}
    done = subprocess.run(
        [*command, str(WORKER), str(folder), json.dumps(options)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    if done.returncode and not options.get("die_at"):
        raise AssertionError(done.stdout[-2000:] + done.stderr[-6000:])
    return done.returncode


def losses(folder: Path) -> dict[int, float]:
    return {int(step): loss for step, loss in json.loads((folder / "losses.json").read_text()).items()}


@needs_deepspeed
def test_two_processes_under_zero3_equal_one(tmp_path):
    """The same global batch, whole in one process, and cut for two processes and two accumulation steps."""
    train_here(tmp_path / "one", {"micro_batches": 1})
    launch(tmp_path / "two", 2, micro_batches=2, deepspeed=ZERO_3)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=TOLERANCE)
    one, two = (load_file(tmp_path / name / "checkpoint-8" / "trained.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].shape == two[name].shape
        assert (one[name] - two[name]).abs().max() < 1e-4, name


@pytest.mark.parametrize(
    "deepspeed", [pytest.param(None, id="ddp"), pytest.param(ZERO_3, id="zero3", marks=needs_deepspeed)]
)
def test_two_processes_killed_and_resumed(tmp_path, deepspeed):
    """Dropout included: both processes die at step 5, go on at the checkpoint of step 3, and lose nothing."""
    options = {"micro_batches": 1, "dropout": 0.3, "deepspeed": deepspeed}
    launch(tmp_path / "twin", 2, **options)
    assert launch(tmp_path / "run", 2, **options, die_at=5) != 0
    assert not (tmp_path / "run" / "losses.json").exists()
    launch(tmp_path / "run", 2, **options)
    twin, resumed = losses(tmp_path / "twin"), losses(tmp_path / "run")
    assert sorted(resumed) == [4, 5, 6, 7, 8]
    assert resumed == {step: pytest.approx(twin[step], abs=1e-6) for step in resumed}
