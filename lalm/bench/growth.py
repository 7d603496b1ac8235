"""How cost grows: of a sample with its useful tokens, and of the loader's memory with the number of records."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lalm.bench.machine import AllocatedPeak, peak_memory_bytes
from lalm.bench.ours import Pace
from lalm.bench.sizes import Sizes, bench_recipe
from lalm.bench.workload import Workload, write_workload
from lalm.data.dataset import build_stage_data
from lalm.model.build import build_empty, build_processor
from lalm.training.batches import open_clip_store

LOADER_WORKLOAD = Workload(num_clips=64, questions_per_clip=16, clip_seconds=(0.5, 1.5))
"""Clips and texts of which as many records are made as are wanted."""


@dataclass(frozen=True)
class LoaderRun:
    """A stage of so many records, built but not trained."""

    sizes: Sizes
    num_records: int


def growth_rows(cases: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Useful tokens of a sample, and its seconds in the fastest warm epoch, of each case."""
    return [
        {
            "answer_chars": case["answer_chars"],
            "useful_tokens_per_sample": case["useful_tokens_per_record"],
            "seconds_per_sample": case["fastest_warm_seconds_per_sample"],
        }
        for case in cases
    ]


def fit_line(rows: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """Least squares of seconds over tokens, with the share of the variance that the line explains; None below three."""
    if len(rows) < 3:
        return None
    tokens = np.array([row["useful_tokens_per_sample"] for row in rows])
    seconds = np.array([row["seconds_per_sample"] for row in rows])
    slope, offset = np.polyfit(tokens, seconds, 1)
    left = ((seconds - (slope * tokens + offset)) ** 2).sum()
    spread = ((seconds - seconds.mean()) ** 2).sum()
    return {
        "seconds_per_token": float(slope),
        "seconds_at_zero": float(offset),
        "r_squared": float(1 - left / spread) if spread else 1.0,
    }


def run_loader(run: LoaderRun, pace: Pace) -> None:
    """Builds a stage of `num_records` in a fresh process, and reports what of its memory the stage takes."""
    with tempfile.TemporaryDirectory(prefix="lalm-bench-") as name:
        folder = Path(name)
        os.environ["LALM_CACHE"] = str(folder / "cache")
        write_many(folder, run.num_records)
        recipe = bench_recipe(run.sizes, folder, epochs=1, batch_records=16)
        processor = build_processor(recipe, build_empty(recipe).audio_tower)
        clips = open_clip_store(recipe, processor)
        pace.wait()
        started = time.perf_counter()
        with AllocatedPeak() as memory:
            data = build_stage_data(recipe, 0, processor, clips)
            for item in range(0, len(data.dataset), max(1, len(data.dataset) // 32)):
                data.dataset[item]
        pace.done(
            {
                "num_records": run.num_records,
                "loader_bytes": memory.kept_bytes,
                "loader_peak_bytes": memory.grown_bytes,
                "process_peak_bytes": peak_memory_bytes(),
                "seconds": time.perf_counter() - started,
                "num_examples": len(data.examples),
            }
        )


def write_many(folder: Path, num_records: int) -> None:
    """`train.jsonl` with so many records over the same few clips, each with an id of its own."""
    objects = [record.to_json() for record in write_workload(folder, LOADER_WORKLOAD)]
    with (folder / "train.jsonl").open("w", encoding="utf-8") as out:
        for number in range(num_records):
            out.write(json.dumps(objects[number % len(objects)] | {"id": f"r{number}"}) + "\n")
