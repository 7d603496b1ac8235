"""Runs of the tiny shapes in this process."""

from __future__ import annotations

from typing import Any

import pytest
from forked import start_server

from lalm.bench.children import SIDE_MODULES
from lalm.bench.ours import OurRun, run_ours
from lalm.bench.sizes import TINY, Switches
from lalm.bench.workload import Workload


@pytest.fixture(autouse=True)
def sides_are_forked(request: pytest.FixtureRequest) -> None:
    """Sides start at once, whichever processes were forked in this one before."""
    if request.node.get_closest_marker("slow"):
        start_server(SIDE_MODULES)


TINY_WORKLOAD = Workload(num_clips=3, questions_per_clip=2, clip_seconds=(0.3, 1.5))


class ListPace:
    """Never waits, and keeps what is reported."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.waits = 0

    def wait(self) -> None:
        self.waits += 1

    def done(self, result: dict[str, Any]) -> None:
        self.results.append(result)


@pytest.fixture
def pace() -> ListPace:
    return ListPace()


@pytest.fixture
def tiny_workload() -> Workload:
    return TINY_WORKLOAD


_RUNS: dict[Any, list[dict[str, Any]]] = {}


@pytest.fixture
def run_tiny():
    """`run_tiny(switch=False, ...)`: the pieces of a run whose steps hold all records; each is run once a session."""

    def run(second_encoder: bool = False, audio: str = "salmonn", **switches: bool) -> list[dict[str, Any]]:
        chosen = OurRun(
            TINY,
            TINY_WORKLOAD,
            audio=audio,  # type: ignore[arg-type]
            second_encoder=second_encoder,
            switches=Switches(**switches),
            batch_records=TINY_WORKLOAD.num_records,
        )
        key = (second_encoder, audio, chosen.switches)
        if key not in _RUNS:
            pace = ListPace()
            run_ours(chosen, pace)
            _RUNS[key] = pace.results
        return _RUNS[key]

    return run
