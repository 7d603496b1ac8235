"""Ratios are computed from rows, turns are spread, and what cannot be compared is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lalm.bench.peers import (
    PeersOptions,
    compare_peers,
    fastest,
    headline_questions,
    interleaved,
    memory_ratios,
    ratios,
    row_of,
)
from lalm.bench.plots import draw_peers
from lalm.bench.sizes import TINY
from lalm.bench.tables import peers_table, ratio_lines
from lalm.bench.workload import Workload
from lalm.errors import RecipeError, TrainingError


def row(
    system: str,
    epoch: str,
    speed: float,
    precision: str = "float32",
    questions: int = 4,
    peak: int = 100,
    beside: str = "salmonn",
    beside_precision: str = "bfloat16",
) -> dict:
    return {
        "beside": beside,
        "beside_precision": beside_precision,
        "system": system,
        "epoch": epoch,
        "precision": precision,
        "questions_per_clip": questions,
        "samples_per_second": speed,
        "peak_memory_bytes": peak,
    }


ROWS = [
    row("ours", "cold", 6.0, peak=30),
    row("ours", "cold", 60.0, peak=3, beside_precision="float32"),
    row("salmonn", "cold", 0.5, "float32", peak=90),
    row("salmonn", "cold", 2.0, "bfloat16", peak=60),
    row("ours", "warm", 20.0, peak=30),
    row("salmonn", "warm", 2.5, "bfloat16", peak=60),
    row("ours", "cold", 100.0, questions=1, beside_precision="float32"),
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


@pytest.mark.slow(seconds=40)
def test_one_peer_is_compared_in_one_run(tmp_path: Path):
    options = PeersOptions(TINY, questions=(1,), num_clips=2, peers=("granite_speech",), clip_seconds=(0.3, 1.0))
    results = compare_peers(options, Console(quiet=True))
    assert set(results["ratios"]) == {"granite_speech"}
    assert set(results["ratios"]["granite_speech"]) == {"cold", "warm"}
    assert all(ratio > 0 for ratio in results["ratios"]["granite_speech"].values())
    measured = [(row["system"], row["precision"], row["epoch"]) for row in results["rows"]]
    assert measured[:6] == [
        ("ours", "float32", "cold"),
        ("granite_speech", "bfloat16", "cold"),
        ("ours", "float32", "warm"),
        ("granite_speech", "bfloat16", "warm"),
        ("ours", "float32", "cold"),
        ("granite_speech", "float32", "cold"),
    ]
    assert measured[6:] in ([], [("ours", "float32", "warm"), ("granite_speech", "float32", "warm")])
    assert all(row["records"] == 2 for row in results["rows"])
    assert all(row["peak_memory_bytes"] > 2**20 for row in results["rows"])
    assert [path.name for path in draw_peers(results, tmp_path)] == ["bench-peers.png"]
    assert peers_table(results).row_count == len(measured)
    assert ratio_lines(results)[0].startswith("granite_speech: ")


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


class NoProcess:
    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def next(self):
        return {"device": "none", "matrix_flops_per_second": {}, "load_average": 0.0}


def test_a_peer_that_fails_loses_nothing_of_the_others(monkeypatch):
    monkeypatch.setattr("lalm.bench.peers.Side", NoProcess)

    def compare(peer, questions, precision, *_):
        if (peer, questions, precision) == ("qwen2_audio", 4, "float32"):
            raise TrainingError("ended early (exit status -9)")
        for epoch in ("cold", "warm"):
            yield row("ours", epoch, 8.0, "float32", questions, beside=peer, beside_precision=precision)
            yield row(peer, epoch, {"bfloat16": 4.0, "float32": 2.0}[precision], precision, questions, beside=peer)

    monkeypatch.setattr("lalm.bench.peers._compare", compare)
    kept = []
    options = PeersOptions(TINY, questions=(1, 4), peers=("qwen2_audio", "granite_speech"))
    results = compare_peers(options, Console(quiet=True), keep=lambda so_far: kept.append(len(so_far["rows"])))
    assert results["problems"] == ["qwen2_audio, 4 questions a clip, float32: ended early (exit status -9)"]
    assert results["ratios"] == {
        "qwen2_audio": {"cold": 2.0, "warm": 2.0},
        "granite_speech": {"cold": 2.0, "warm": 2.0},
    }
    assert set(results["ratios_by_questions"]["1"]) == {"qwen2_audio", "granite_speech"}
    assert kept == [4, 8, 16, 20]
