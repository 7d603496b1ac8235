"""Fills the state cache: every clip goes through the frozen encoder once.

Decoding and features run in a background thread while the encoder works. Clips are sorted by length, so that a batch
holds little padding. What is stored stays stored: a killed run goes on where it stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lalm.data.cache import StateCache
from lalm.data.clips import ClipStore
from lalm.errors import AudioError, DataError

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor

Encode = Callable[[dict], tuple[torch.Tensor, torch.Tensor]]
"""Audio inputs of n clips -> states [n, T, E] and valid steps [n]."""

MAX_CLIPS = 32
"""The most clips in a batch, whatever their length: encoders that pad to 30 s pay by the clip."""
_PREFETCHED_BATCHES = 2


@dataclass
class FillReport:
    """What a filling did."""

    num_encoded: int = 0
    num_already_stored: int = 0
    num_broken: int = 0
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class _Clip:
    path: str
    audio_hash: str
    seconds: float


def estimate_bytes(audio_seconds: float, steps_per_second: float, cache: StateCache) -> int:
    """About how much the states of so much audio take on the disk."""
    return round(audio_seconds * steps_per_second * cache.payload_bytes(1))


def fill_cache(
    paths: Iterable[str],
    clips: ClipStore,
    processor: LalmProcessor,
    encode: Encode,
    cache: StateCache,
    *,
    batch_seconds: float = 120.0,
    steps_per_second: float | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> FillReport:
    """Encodes and stores every clip of `paths` that the cache lacks.

    Args:
        encode: runs the encoder, `lambda inputs: model.encode_audio(**inputs)`.
        batch_seconds: the most audio in a batch, counted as its clips times its longest.
        steps_per_second: encoder steps, for a size estimate before the first clip.
        rank, world_size: this process encodes its share.
        report: receives one line before the first clip; `progress` shows a bar besides.

    Raises:
        DataError: if more than the allowed share of clips is unusable, or the disk is too small.
    """
    started, result, paths = time.perf_counter(), FillReport(), list(dict.fromkeys(paths))
    todo = _missing(paths, clips, cache, result)[rank::world_size]
    if todo:
        _announce(todo, cache, steps_per_second, report)
        _encode_all(todo, clips, processor, encode, cache, batch_seconds, progress and rank == 0, result)
    clips.check_bad_share(paths)
    result.num_broken = sum(path in clips.quarantine for path in paths)
    result.wall_seconds = time.perf_counter() - started
    return result


def _missing(paths: list[str], clips: ClipStore, cache: StateCache, result: FillReport) -> list[_Clip]:
    """Clips to encode, each content once, the longest first: too large a batch shows at once."""
    clips.scan(paths)
    clips.check_bad_share(paths)
    cache.refresh()
    wanted: dict[str, _Clip] = {}
    for path in paths:
        info = clips.info(path)
        if info is None:
            continue
        wanted.setdefault(info.audio_hash, _Clip(path, info.audio_hash, info.num_samples / clips.sample_rate_hz))
    todo = [clip for clip in wanted.values() if clip.audio_hash not in cache]
    result.num_already_stored = len(wanted) - len(todo)
    return sorted(todo, key=lambda clip: (-clip.seconds, clip.audio_hash))


def _announce(
    todo: list[_Clip], cache: StateCache, steps_per_second: float | None, report: Callable[[str], None]
) -> None:
    seconds = sum(clip.seconds for clip in todo)
    size = ""
    if steps_per_second is not None:
        needed, free = estimate_bytes(seconds, steps_per_second, cache), shutil.disk_usage(cache.folder).free
        size = f", about {needed / 2**20:.0f} MiB"
        if needed > free:
            raise DataError(
                f"{cache.folder}: the states need about {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB "
                "are free. Free some space, set LALM_CACHE to another disk, or set data.cache_states to "
                "false."
            )
    report(f"Encoding {len(todo)} clips, {seconds:.0f} s of audio{size}, into {cache.folder}")


def _batches(todo: list[_Clip], batch_seconds: float) -> Iterator[list[_Clip]]:
    """Consecutive clips; the first of a batch is its longest."""
    batch: list[_Clip] = []
    for clip in todo:
        if batch and (len(batch) >= MAX_CLIPS or (len(batch) + 1) * batch[0].seconds > batch_seconds):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def _encode_all(
    todo: list[_Clip],
    clips: ClipStore,
    processor: LalmProcessor,
    encode: Encode,
    cache: StateCache,
    batch_seconds: float,
    progress: bool,
    result: FillReport,
) -> None:
    batches = list(_batches(todo, batch_seconds))
    columns = (
        TextColumn("encoding"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} s of audio"),
        TextColumn("{task.fields[rate]:.0f} audio-seconds/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not progress) as bar, ThreadPoolExecutor(1) as pool:
        task = bar.add_task("", total=sum(clip.seconds for clip in todo), rate=0.0)
        started = time.perf_counter()
        try:
            coming = [pool.submit(_prepare, batch, clips, processor) for batch in batches[:_PREFETCHED_BATCHES]]
            for number, batch in enumerate(batches):
                usable, inputs = coming.pop(0).result()
                if number + _PREFETCHED_BATCHES < len(batches):
                    coming.append(pool.submit(_prepare, batches[number + _PREFETCHED_BATCHES], clips, processor))
                if usable:
                    _encode_batch(usable, inputs, encode, clips, cache, result)
                elapsed = time.perf_counter() - started
                bar.update(
                    task, advance=sum(clip.seconds for clip in batch), rate=result.audio_seconds / max(elapsed, 1e-9)
                )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare(batch: list[_Clip], clips: ClipStore, processor: LalmProcessor) -> tuple[list[_Clip], dict]:
    """Decodes a batch and computes its features; clips that fail are quarantined and left out."""
    usable, waves = [], []
    for clip in batch:
        try:
            waves.append(clips.load(clip.path))
            usable.append(clip)
        except AudioError as error:
            clips.quarantine_clip(clip.path, str(error))
    return usable, dict(processor.audio_inputs(waves)) if usable else {}


def _encode_batch(
    batch: list[_Clip], inputs: dict, encode: Encode, clips: ClipStore, cache: StateCache, result: FillReport
) -> None:
    with torch.inference_mode():
        states, lengths = encode(inputs)
    for clip, rows, length in zip(batch, states, lengths.tolist(), strict=True):
        try:
            cache.put(clip.audio_hash, rows[:length])
        except DataError as error:
            clips.quarantine_clip(clip.path, f"{clip.path}: {error}")
            continue
        result.num_encoded += 1
        result.audio_seconds += clip.seconds
