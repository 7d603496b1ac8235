"""Carries out a plan: reads source clips, makes variants and scenes, writes 16 kHz mono FLAC, on several processes.

Every file depends on its own plan entry alone, so the number of workers changes nothing. A clip that cannot be read is
reported and left out, with whatever was made of it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ, Clip, Skipped, seeded
from data_builders.scenes import Scene, compose
from data_builders.selection import LONGEST_CLIP_SECONDS, StoredClip, StoredScene
from data_builders.variants import apply_variant, low_passed, padded, trimmed, with_peak
from lalm.audio.io import load_audio, save_audio
from lalm.errors import AudioError

CHUNK = 32


@dataclass(frozen=True)
class Written:
    """One file as it was written."""

    id: str
    file: str
    seconds: float
    sha256: str
    scene: Scene | None = None


def write_all(
    clips: Sequence[StoredClip],
    scenes: Sequence[StoredScene],
    folder: Path,
    *,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Written], list[Skipped]]:
    """Writes every planned file under `folder` as `<id>.flac`; returns what was written by id, and what was not."""
    jobs = [*clips, *scenes]
    folder.mkdir(parents=True, exist_ok=True)
    job = partial(write_one, folder=folder, seed=seed)
    written: dict[str, Written] = {}
    skipped: list[Skipped] = []

    def take(results) -> None:
        for number, result in enumerate(results, start=1):
            if isinstance(result, Written):
                written[result.id] = result
            else:
                skipped.append(result)
            progress(number, len(jobs))

    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            take(pool.map(job, jobs, chunksize=CHUNK))
    else:
        take(map(job, jobs))
    return written, skipped


def write_one(job: StoredClip | StoredScene, *, folder: Path, seed: int) -> Written | Skipped:
    """Writes one file. A source that cannot be read gives a Skipped with the reason."""
    try:
        wave, scene = _scene(job, seed) if isinstance(job, StoredScene) else (_clip(job, seed), None)
    except (AudioError, ValueError) as error:
        return Skipped(job.id, str(error))
    path = folder / f"{job.id}.flac"
    save_audio(path, np.clip(wave, -1, 1), SAMPLE_RATE_HZ)
    return Written(
        job.id, path.name, round(len(wave) / SAMPLE_RATE_HZ, 3), hashlib.sha256(path.read_bytes()).hexdigest(), scene
    )


def _clip(stored: StoredClip, seed: int) -> np.ndarray:
    wave = read_wave(stored.clip)
    rng = seeded(seed, "write", stored.id)
    if stored.clip.kind != "speech":
        wave = with_peak(trimmed(wave, LONGEST_CLIP_SECONDS), rng.uniform(0.25, 0.8))
    if stored.variant:
        wave = apply_variant(wave, stored.variant, zlib.crc32(stored.id.encode()))
    if stored.telephone:
        wave = low_passed(wave)
    if not len(wave) or float(np.abs(wave).max()) < 1e-3:
        raise ValueError("is silent")
    return padded(wave)


def _scene(stored: StoredScene, seed: int) -> tuple[np.ndarray, Scene]:
    waves = [read_wave(clip) for clip in stored.plan.clips]
    wave, scene = compose(stored.plan, waves, seeded(seed, "compose", stored.id))
    return (low_passed(wave) if stored.telephone else wave), scene


def read_wave(clip: Clip) -> np.ndarray:
    """[S] float32 at SAMPLE_RATE_HZ.

    Raises:
        AudioError: for a file that cannot be decoded.
    """
    if clip.render is not None:
        return clip.render()
    assert clip.path is not None
    return load_audio(clip.path, SAMPLE_RATE_HZ)
