"""How fast this machine builds, and a set of any size from invented scenes: `lalm data bench`.

Nothing is read. Scenes are planned as real ones are, with lengths drawn in place of recordings, so questions are asked
of ready metadata alone; composing mixes noise of those lengths. Rates are of processor seconds, which a busy machine
does not stretch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from data_builders.asking import ask_all
from data_builders.clips import SAMPLE_RATE_HZ, Clip, seeded
from data_builders.effects import EffectShares, draw_effects
from data_builders.questions.base import Context
from data_builders.questions.scenes import NEAR
from data_builders.row_sources import MadeRows
from data_builders.scenes import LONGEST_EVENT_SECONDS, Event, Scene, ScenePlan, compose, plan_scene, scene_label
from data_builders.selection import StoredScene
from data_builders.shards import NOTES, Job, write_shard, write_shards
from data_builders.writing import Written
from lalm.data.records import Record, parse_record
from lalm.errors import DataError

ROWS_PER_BLOCK = 10_000
"""Rows of a shard, whose scenes are asked together."""
SCENES_PER_BLOCK = 650
TASK_SHARES = {
    "scene_events": 0.08,
    "scene_presence": 0.25,
    "scene_order": 0.22,
    "scene_count": 0.08,
    "scene_compare": 0.08,
    "scene_before": 0.08,
    "scene_absent": 0.06,
    "description": 0.04,
    "multiple_choice": 0.05,
    "instruction": 0.06,
}
ROUNDS = dict.fromkeys(TASK_SHARES, 8)
MIXED_EFFECTS = EffectShares(overlap=0.3, background=0.4, reverb=0.2, filter=0.1, stereo=0.1)
CLIPS_PER_LABEL = 8


@dataclass(frozen=True)
class Rates:
    """Of one core: rows a second by step; seconds of scenes a second, plain and with the effects of a mixed set."""

    asked: float
    """From ready metadata to rows: choosing, wording, balancing. What the target of 20,000 a second counts."""
    checked: float
    """The validator alone, of rows that are asked."""
    written: float
    """Parquet and its digest alone, of rows that are checked."""
    scenes: float
    scenes_with_effects: float

    @property
    def rows(self) -> float:
        """All three steps, one after another."""
        return 1 / (1 / self.asked + 1 / self.checked + 1 / self.written)


@dataclass(frozen=True)
class Growth:
    """One moment of a long build: rows so far, processor seconds, resident memory in MB."""

    rows: int
    seconds: float
    megabytes: float


def measure(*, num_blocks: int = 4, num_scenes: int = 60) -> Rates:
    """The rates of one core of this machine: the best of several rounds, since others may use its caches meanwhile."""
    steps = zip(*map(_row_rates, range(num_blocks)), strict=True)
    asked, checked, written = map(max, steps)
    plain = max(_scene_rate(num_scenes) for _ in range(num_blocks))
    return Rates(asked, checked, written, plain, max(_scene_rate(num_scenes, MIXED_EFFECTS) for _ in range(num_blocks)))


def build_invented(
    out: Path, num_rows: int, *, workers: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Growth]:
    """Asks and writes a set of so many rows as shards with a manifest; returns what it cost as it grew.

    Every shard is asked of scenes of its own, so that memory does not depend on the number of rows; a stopped run goes
    on. Processor time and memory are of this process: measure with one worker.

    Raises:
        DataError: for rows that are no whole number of shards, or a folder of something else.
    """
    if num_rows < 1 or num_rows % ROWS_PER_BLOCK:
        raise DataError(f"rows: {num_rows} is not accepted. Give a multiple of {ROWS_PER_BLOCK}.")
    found: list[Growth] = []
    started = time.process_time()

    def grown(done: int, total: int) -> None:
        found.append(Growth(done * ROWS_PER_BLOCK, time.process_time() - started, _resident_megabytes()))
        progress(done, total)

    write_shards(InventedRows(num_rows), out, rows_per_shard=ROWS_PER_BLOCK, workers=workers, progress=grown)
    return found


@dataclass(frozen=True)
class InventedRows:
    """Rows of invented scenes, by number: a source of `write_shards`."""

    num_rows: int

    def count(self) -> int:
        return self.num_rows

    def rows(self, start: int, stop: int) -> Iterator[Record]:
        while start < stop:
            number, place = divmod(start, ROWS_PER_BLOCK)
            chosen = block_rows(number)[place : place + stop - start]
            yield from chosen
            start += len(chosen)

    def identity(self) -> str:
        return f"invented scenes:{self.num_rows}"


def block_rows(number: int) -> list[Record]:
    """The ROWS_PER_BLOCK rows of one block."""
    return [parse_record(row, f"block {number}") for row in _asked(*ready_scenes(number), number)]


def ready_scenes(number: int) -> tuple[list[StoredScene], dict[str, Written]]:
    """The scenes of one block, and what is known of them."""
    items = [
        StoredScene(f"scene-{number:06d}-{place:04d}", "train", invented_plan(number, place), False)
        for place in range(SCENES_PER_BLOCK)
    ]
    return items, {item.id: invented_truth(item) for item in items}


def _asked(items: list[StoredScene], written: dict[str, Written], number: int) -> tuple[dict[str, Any], ...]:
    quotas = {task: round(share * ROWS_PER_BLOCK) for task, share in TASK_SHARES.items()}
    asked = ask_all("train", items, written, _context(), quotas, number, rounds=ROUNDS)
    if len(asked.rows) != ROWS_PER_BLOCK:
        counts = {task: sum(row["task"] == task for row in asked.rows) for task in quotas}
        raise AssertionError(f"block {number} has {len(asked.rows)} rows: {counts}")
    return asked.rows


def invented_plan(number: int, place: int, shares: EffectShares | None = None) -> ScenePlan:
    """The plan of one scene."""
    rng = seeded("invented", number, place)
    plan = plan_scene(_bank(), rng)
    if shares is None:
        return plan
    return ScenePlan(plan.clips, plan.levels_db, plan.gaps, draw_effects(shares, len(plan.clips), rng))


def invented_truth(item: StoredScene) -> Written:
    """What composing would say of a plan without effects, its lengths drawn."""
    rng = seeded("truth", item.id)
    events, cursor = [], item.plan.gaps[0]
    for clip, level, gap in zip(item.plan.clips, item.plan.levels_db, item.plan.gaps[1:], strict=True):
        length = round(rng.uniform(0.3, LONGEST_EVENT_SECONDS), 3)
        events.append(Event(scene_label(clip), clip.id, clip.group, round(cursor, 3), length, level, level + 10))
        cursor += length + gap
    return Written(item.id, f"{item.id}.flac", round(cursor, 3), "0" * 64, Scene(tuple(events)))


@cache
def _bank() -> dict[str, list[Clip]]:
    return {
        label: [
            Clip(f"{label}-{take}", None, 1.5, "invented", "CC0-1.0", f"{label}-{take}", "sound", label=label)
            for take in range(CLIPS_PER_LABEL)
        ]
        for label in sorted(NEAR)
    }


@cache
def _context() -> Context:
    labels = tuple(sorted(NEAR))
    return Context(labels, (), labels)


def _row_rates(number: int) -> tuple[float, float, float]:
    """Rows a processor second of ready scenes: asked; validated; written."""
    items, written = ready_scenes(number)
    times = [time.process_time()]
    rows = _asked(items, written, number)
    times.append(time.process_time())
    records = [parse_record(row, "invented") for row in rows]
    times.append(time.process_time())
    with TemporaryDirectory() as folder:
        (Path(folder) / NOTES).mkdir()
        source = MadeRows("invented", len(records), records.__getitem__)
        write_shard(0, Job(source, Path(folder), "parquet", len(records), None))
    times.append(time.process_time())
    asking, checking, writing = (len(rows) / (end - start) for start, end in pairwise(times))
    return asking, checking, writing


def _scene_rate(num_scenes: int, shares: EffectShares | None = None) -> float:
    """Seconds of composed scenes a processor second."""
    plans = [invented_plan(0, place, shares) for place in range(num_scenes)]
    noise = np.random.default_rng(0)
    waves = [0.1 * noise.standard_normal(round(2.0 * SAMPLE_RATE_HZ)).astype(np.float32) for _ in range(8)]
    samples, started = 0, time.process_time()
    for place, plan in enumerate(plans):
        chosen = [waves[(place + event) % len(waves)] for event in range(len(plan.clips))]
        samples += len(compose(plan, chosen, random.Random(place))[0])
    return samples / SAMPLE_RATE_HZ / (time.process_time() - started)


def _resident_megabytes() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 2**20
