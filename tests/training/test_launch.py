"""What an error says of the other processes of a run."""

from __future__ import annotations

import pytest

from lalm.training.distributed import tells_of_a_lost_process


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
