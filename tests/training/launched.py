"""`lalm train` started by the launchers of the README, as their users start it. Not a test itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LIMIT_SECONDS = 300
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
LAUNCHERS = [
    pytest.param(["torchrun", "--standalone", "--nproc-per-node", "2", "-m"], [], "", id="torchrun"),
    pytest.param(
        ["deepspeed", "--num_gpus", "2", "--no_local_rank", "--module"],
        ["deepspeed.zero_optimization.stage=2"],
        "world_size=2",
        id="deepspeed",
        marks=needs_deepspeed,
    ),
]
"""The command with two processes, the overrides that belong to it, and what it prints."""


def launch(launcher: list[str], arguments: list[str], folder: Path) -> str:
    """Runs `lalm train` with these arguments in `folder`; returns what it printed."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, str(BIN / launcher[0]), *launcher[1:], "lalm", "train", *arguments],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
             "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr
