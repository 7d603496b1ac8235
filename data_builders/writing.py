"""Carries out a plan: reads source clips, makes variants and scenes, writes 16 kHz FLAC.

Every file depends on its own plan entry alone, so the number of workers changes nothing. A clip that cannot be read is
reported and left out, with whatever was made of it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.clips import SAMPLE_RATE_HZ, Clip, Skipped, seeded
from data_builders.features import measured
from data_builders.scenes import Event, Scene, compose
from data_builders.selection import LONGEST_CLIP_SECONDS, StoredClip, StoredScene
from data_builders.variants import apply_variant, low_passed, padded, trimmed, with_peak
from lalm.audio.io import load_audio, save_audio
from lalm.errors import AudioError

CHUNK = 32
REMEMBERED_WAVES = 256
"""Recordings that a process keeps in memory, since scenes take the same ones again and again."""

_waves: OrderedDict[tuple[Path, str], np.ndarray] = OrderedDict()
"""By the folder that is written and the clip: ids are those of one set."""


@dataclass(frozen=True)
class Written:
    """One file as it was written."""

    id: str
    file: str
    seconds: float
    sha256: str
    scene: Scene | None = None
    features: dict[str, float] = field(default_factory=dict)
    """What was measured of a sound or an instrument."""


def write_chunk(job: Sequence[StoredClip | StoredScene], *, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Writes the files of some plan entries; yields each Written or Skipped as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in job:
        result = write_one(item, folder=folder, seed=seed)
        if isinstance(result, Skipped):
            yield {"id": result.id, "reason": result.reason}
            continue
        row: dict[str, Any] = {key: value for key, value in vars(result).items() if key not in ("scene", "features")}
        if result.features:
            row["features"] = result.features
        if result.scene:
            row["scene"] = {"events": result.scene.to_json(), "effects": result.scene.effects}
        yield row


def written_of(row: dict[str, Any]) -> Written | Skipped:
    """What `write_chunk` said of one entry."""
    if "reason" in row:
        return Skipped(row["id"], row["reason"])
    scene = row.get("scene")
    truth = Scene(tuple(Event(**event) for event in scene["events"]), scene["effects"]) if scene else None
    return Written(row["id"], row["file"], row["seconds"], row["sha256"], truth, row.get("features") or {})


def write_one(job: StoredClip | StoredScene, *, folder: Path, seed: int) -> Written | Skipped:
    """Writes one file. A source that cannot be read gives a Skipped with the reason."""
    try:
        wave, scene = _scene(job, folder, seed) if isinstance(job, StoredScene) else (_clip(job, seed), None)
    except (AudioError, ValueError) as error:
        return Skipped(job.id, str(error))
    path = folder / f"{job.id}.flac"
    save_audio(path, np.clip(wave, -1, 1), SAMPLE_RATE_HZ)
    one_sound = isinstance(job, StoredClip) and job.clip.kind != "speech" and not job.clip.facts.get("told")
    return Written(
        job.id,
        path.name,
        round(len(wave) / SAMPLE_RATE_HZ, 3),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        scene,
        measured(wave) if one_sound else {},
    )


def _clip(stored: StoredClip, seed: int) -> np.ndarray:
    wave = read_wave(stored.clip)
    rng = seeded(seed, "write", stored.id)
    if stored.clip.kind != "speech":
        whole = bool(stored.clip.facts.get("told"))
        wave = with_peak(wave if whole else trimmed(wave, LONGEST_CLIP_SECONDS), rng.uniform(0.25, 0.8))
    if stored.variant:
        wave = apply_variant(wave, stored.variant, zlib.crc32(stored.id.encode()))
    if stored.telephone:
        wave = low_passed(wave)
    if not len(wave) or float(np.abs(wave).max()) < 1e-3:
        raise ValueError("is silent")
    return padded(wave)


def _scene(stored: StoredScene, folder: Path, seed: int) -> tuple[np.ndarray, Scene]:
    waves = [_remembered_wave(clip, folder) for clip in stored.plan.clips]
    wave, scene = compose(stored.plan, waves, seeded(seed, "compose", stored.id))
    if stored.telephone:
        wave = low_passed(wave) if wave.ndim == 1 else np.stack([low_passed(side) for side in wave.T], axis=1)
    return wave, scene


def forget_waves() -> None:
    """Empties the memory of recordings; a process that builds several sets calls it before each."""
    _waves.clear()


def _remembered_wave(clip: Clip, folder: Path) -> np.ndarray:
    key = (folder, clip.id)
    if key not in _waves:
        _waves[key] = read_wave(clip)
        if len(_waves) > REMEMBERED_WAVES:
            _waves.popitem(last=False)
    _waves.move_to_end(key)
    return _waves[key]


def read_wave(clip: Clip) -> np.ndarray:
    """[S] float32 at SAMPLE_RATE_HZ.

    Raises:
        AudioError: for a file that cannot be decoded.
    """
    if clip.render is not None:
        return clip.render()
    assert clip.path is not None
    return load_audio(clip.path, SAMPLE_RATE_HZ)
