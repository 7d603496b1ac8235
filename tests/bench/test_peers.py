"""Ratios are computed from rows, turns are spread, and what cannot be compared is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lalm.bench.peers import PeersOptions, fastest, headline_questions, interleaved, memory_ratios, ratios, row_of
from lalm.bench.sizes import TINY
from lalm.bench.workload import Workload
from lalm.errors import RecipeError


def row(system: str, epoch: str, speed: float, precision: str = "float32", questions: int = 4, peak: int = 100) -> dict:
    return {
        "beside": "salmonn",
        "system": system,
        "epoch": epoch,
        "precision": precision,
        "questions_per_clip": questions,
        "samples_per_second": speed,
        "peak_memory_bytes": peak,
    }


ROWS = [
    row("ours", "cold", 6.0, peak=30),
    row("salmonn", "cold", 0.5, "float32", peak=90),
    row("salmonn", "cold", 2.0, "bfloat16", peak=60),
    row("ours", "warm", 20.0, peak=30),
    row("salmonn", "warm", 2.5, "bfloat16", peak=60),
    row("ours", "cold", 100.0, questions=1),
    row("salmonn", "cold", 1.0, questions=1),
]


def test_ratios_are_to_the_faster_precision():
    assert ratios(ROWS, 4) == {"salmonn": {"cold": 3.0, "warm": 8.0}}
    assert ratios(ROWS, 1) == {"salmonn": {"cold": 100.0}}
    assert fastest(ROWS, "salmonn", 4)["precision"] == "bfloat16"
    assert memory_ratios(ROWS, 4) == {"salmonn": 0.5}


def test_headline_is_four_questions_where_they_are_measured():
    assert headline_questions((1, 4, 10)) == 4
    assert headline_questions((10, 1)) == 10


@pytest.mark.parametrize(
    ("num_first", "others", "num_each", "order"),
    [(5, ["x", "y"], 1, "aaxaaya"), (2, ["x"], 3, "axxax"), (3, [], 1, "aaa"), (4, ["x"], 1, "aaxaa")],
)
def test_turns_are_spread(num_first: int, others: list[str], num_each: int, order: str):
    assert "".join(interleaved("a", num_first, others, num_each)) == order


def test_a_row_counts_preparation_in_the_seconds():
    class Done:
        peak_memory = 7

    pieces: list[dict[str, Any]] = [
        {"kind": "prepare", "seconds": 2.0},
        {"kind": "step", "seconds": 1.0, "records": 4, "loss": 5.0},
        {"kind": "step", "seconds": 1.0, "records": 4, "loss": 4.0},
    ]
    made = row_of("ours", "float32", pieces, Done(), Workload(num_clips=4))  # type: ignore[arg-type]
    assert made["samples_per_second"] == 2.0
    assert (made["prepare_seconds"], made["step_seconds"], made["losses"]) == (2.0, [1.0, 1.0], [5.0, 4.0])
    assert made["peak_memory_bytes"] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peers": ("salmonn", "qwen3")}, "--peers qwen3: unknown. Accepted: salmonn, granite_speech, qwen2_audio"),
        ({"questions": (0,)}, "--questions, --clips and --steps: give whole numbers from 1"),
        ({"num_steps": 0}, "--questions, --clips and --steps"),
        ({"questions": ()}, "--questions"),
    ],
)
def test_refused(changes: dict, message: str):
    with pytest.raises(RecipeError, match=message):
        PeersOptions(TINY, **changes)
