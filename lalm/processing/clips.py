"""Clips in the forms that people give them -> waveforms -> the features of every encoder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lalm.audio.features import FrontEnd
from lalm.audio.io import load_audio, resample
from lalm.errors import AudioError, DataError

if TYPE_CHECKING:
    from torch import Tensor


def sort_clips(audio: Any, texts: Sequence[str]) -> list[list[Any]]:
    """A clip, a list of clips or a list of lists -> the clips of each prompt.

    A flat list goes with one prompt, or gives each of several prompts one clip.

    Raises:
        DataError: if it is not clear which clip goes with which prompt.
    """
    if audio is None:
        return [[] for _ in texts]
    if not texts:
        raise DataError("audio without text: every clip needs its placeholder in a prompt")
    rows = [audio] if _is_clip(audio) else list(audio)
    if all(not _is_clip(row) for row in rows):
        rows = [list(row) for row in rows]
    elif len(texts) == 1:
        rows = [rows]
    else:
        rows = [[row] for row in rows]
    if len(rows) != len(texts):
        raise DataError(
            f"{len(rows)} groups of clips for {len(texts)} prompts; give a list of lists, one for each prompt"
        )
    return rows


def _is_clip(value: Any) -> bool:
    if isinstance(value, (str, os.PathLike)):
        return True
    return not isinstance(value, (list, tuple)) or (bool(value) and isinstance(value[0], (int, float)))


def read_clip(clip: Any, sampling_rate: int | None, wanted_hz: int) -> np.ndarray:
    """A path, or an array `[S]` or `[channels, S]` at `sampling_rate` -> float32 `[S]` at `wanted_hz`, mono.

    Integers are taken as PCM of their width.

    Raises:
        AudioError: if it cannot be read, or an array has no rate, no samples, another shape or non-finite values.
    """
    if isinstance(clip, (str, os.PathLike)):
        if str(clip).startswith(("http://", "https://")):
            raise AudioError(f"{clip}: audio is not fetched from a URL. Download it and give the file.")
        return load_audio(clip, wanted_hz)
    if isinstance(clip, Mapping) and "array" in clip:
        clip, sampling_rate = clip["array"], clip.get("sampling_rate", sampling_rate)
    if sampling_rate is None:
        raise AudioError(f"an array of samples needs its rate: pass sampling_rate (this model hears {wanted_hz} Hz)")
    samples = np.asarray(clip)
    scale = np.iinfo(samples.dtype).max + 1 if samples.dtype.kind == "i" else 1
    wave = samples.astype(np.float32) / scale
    wave = wave.mean(axis=0) if wave.ndim == 2 and wave.shape[0] <= wave.shape[1] else wave
    if wave.ndim != 1 or not len(wave):
        raise AudioError(f"an array of samples must be [S] or [channels, S] and not empty, this one is {wave.shape}")
    if not np.isfinite(wave).all():
        raise AudioError("an array of samples holds values that are not finite")
    return resample(wave, sampling_rate, wanted_hz)


def features_of(front_ends: Sequence[FrontEnd], waveforms: Sequence[np.ndarray], sampling_rate: int) -> dict[str, Any]:
    """Clips `[S]` at `sampling_rate` -> what the model's audio tower takes.

    Returns:
        `input_features`: for each front end `[N, M, F]`, padded with zeros to its longest chunk.
        `feature_lengths`: for each front end `[N]`, frames that belong to the clip.
        `chunk_counts`: chunks of each clip `[num_clips]`; a list of one for each front end where they differ.
    """
    import torch

    features, lengths, counts = [], [], []
    for front_end in front_ends:
        of_clips = [
            front_end.chunks(resample(np.asarray(wave, dtype=np.float32), sampling_rate, front_end.sample_rate_hz))
            for wave in waveforms
        ]
        chunks = [chunk for of_clip in of_clips for chunk in of_clip]
        features.append(_pad_features([chunk.features for chunk in chunks]))
        lengths.append(torch.tensor([chunk.num_frames for chunk in chunks], dtype=torch.long))
        counts.append(torch.tensor([len(of_clip) for of_clip in of_clips], dtype=torch.long))
    are_equal = all(torch.equal(count, counts[0]) for count in counts)
    return {
        "input_features": features,
        "feature_lengths": lengths,
        "chunk_counts": counts[0] if are_equal else counts,
    }


def _pad_features(features: Sequence[np.ndarray]) -> Tensor:
    """Chunks `[M, F]` of several lengths -> `[N, M, F]`."""
    import torch

    if not features:
        return torch.zeros(0, 0, 0)
    num_frames = max(chunk.shape[1] for chunk in features)
    padded = np.zeros((len(features), features[0].shape[0], num_frames), dtype=np.float32)
    for number, chunk in enumerate(features):
        padded[number, :, : chunk.shape[1]] = chunk
    return torch.from_numpy(padded)
