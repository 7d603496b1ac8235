"""What launchers ask for, and what an error says of the other processes of a run."""

from __future__ import annotations

import pytest

from lalm.errors import TrainingError
from lalm.training.distributed import check_launcher, tells_of_a_lost_process


@pytest.mark.parametrize(
    ("message", "num_processes", "expected"),
    [
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:40222", 2, True),
        ("Read error [127.0.0.1]:1: Connection reset by peer", 4, True),
        ("Connection closed by peer", 1, False),
        ("mat1 and mat2 shapes cannot be multiplied", 2, False),
    ],
)
def test_a_lost_process_is_recognised(message, num_processes, expected):
    assert tells_of_a_lost_process(RuntimeError(message), num_processes) is expected


def test_fsdp_of_the_launcher_is_refused_with_what_does_the_same(monkeypatch):
    check_launcher(wants_deepspeed=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match=r"--use_fsdp: the launcher's own settings .*'fsdp: \{\}' into the recipe"):
        check_launcher(wants_deepspeed=True)


def test_deepspeed_of_the_launcher_alone_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_CONFIG_DS_FIELDS", "")
    check_launcher(wants_deepspeed=True)
    with pytest.raises(TrainingError, match=r"--use_deepspeed: the recipe has no 'deepspeed:' block.*deepspeed: \{\}"):
        check_launcher(wants_deepspeed=False)
