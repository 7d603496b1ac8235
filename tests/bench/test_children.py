"""Sides in processes of their own: their pieces, their memory, their errors."""

from __future__ import annotations

import pytest

from lalm.bench.children import KINDS, Side, find_side
from lalm.bench.machine import forget_peak, peak_memory_bytes, status_bytes
from lalm.bench.peer import PeerRun
from lalm.bench.sizes import TINY
from lalm.bench.workload import Workload
from lalm.errors import TrainingError


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_side_exists(kind: str):
    assert callable(find_side(kind))


def test_memory_is_read():
    held = bytearray(b"x") * (64 * 2**20)
    assert peak_memory_bytes() > len(held)
    del held
    with_it = peak_memory_bytes()
    forget_peak()
    assert peak_memory_bytes() <= with_it
    assert status_bytes("NoSuchLine") == 0


@pytest.mark.slow
def test_a_side_has_its_own_memory_and_an_end():
    with Side("matrix_peak", ("float32",)) as side:
        result = side.next()
        assert result["matrix_flops_per_second"]["float32"] > 1e6
        assert side.peak_memory > 2**20
        with pytest.raises(TrainingError, match="'matrix_peak' has done all its pieces"):
            side.next()


@pytest.mark.slow
def test_a_side_that_is_closed_early_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    workload = Workload(num_clips=2, questions_per_clip=1, clip_seconds=(0.3, 0.5))
    with Side("granite_speech", PeerRun(TINY, workload, num_steps=2, batch_records=2)) as side:
        assert side.next()["records"] == 2
        assert list(tmp_path.glob("lalm-bench-*"))
    assert not list(tmp_path.glob("lalm-bench-*"))


@pytest.mark.slow
def test_a_side_that_fails_says_why():
    side = Side("matrix_peak", ("no_such_type",))
    with side, pytest.raises(TrainingError, match=r"(?s)'matrix_peak' failed:.*no_such_type"):
        side.next()
