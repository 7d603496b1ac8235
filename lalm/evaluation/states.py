"""Encoder states of clips and of silence, each computed once: three conditions and a probe ask for the same clips."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lalm.audio.io import audio_hash
from lalm.errors import AudioError
from lalm.inference.prompting import encode_clips

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

BYTES_KEPT = 2**30
ENCODER_BATCH = 8


class Clips(Protocol):
    """Where waveforms come from; `lalm.data.clips.ClipStore` is one."""

    def load(self, path: str) -> np.ndarray:
        """A clip as float32 `[S]` at the processor's rate. Raises AudioError for one that cannot be used."""


class Cache(Protocol):
    """States that are kept between runs, by hash of the audio; `lalm.data.cache.StateCache` is one."""

    def get(self, audio_hash: str) -> Tensor | None:
        """`[T, E]`, or None for audio that is not held."""

    def put(self, audio_hash: str, states: Tensor) -> None:
        """Keeps the states of a clip."""


class ClipStates:
    """Hands out states `[T, E]`, by path of a clip or by length of silence, and keeps the latest in memory."""

    def __init__(
        self,
        model: LalmForConditionalGeneration,
        processor: LalmProcessor,
        clips: Clips,
        *,
        cache: Cache | None = None,
        bytes_kept: int = BYTES_KEPT,
    ):
        self.model, self.processor, self.clips, self.cache = model, processor, clips, cache
        self.bytes_kept = bytes_kept
        self.broken: dict[str, str] = {}
        """Path -> why the clip cannot be used."""
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._num_bytes = 0
        self._lengths: dict[str, int] = {}

    def num_samples(self, path: str) -> int | None:
        """Length of a clip at the processor's rate; None for a broken clip."""
        if path not in self._lengths and self._load(path) is None:
            return None
        return self._lengths[path]

    def clip(self, path: str) -> Tensor | None:
        """States of a clip; None for a broken one."""
        return self.clip_states([path])[0]

    def clip_states(self, paths: Sequence[str]) -> list[Tensor | None]:
        """States of clips, in order; None for broken ones."""
        found: dict[Hashable, Tensor] = {}
        waiting: dict[Hashable, np.ndarray] = {}
        for path in dict.fromkeys(paths):
            if path in self._kept:
                found[path] = self._kept[path]
            elif (wave := self._load(path)) is not None:
                waiting[path] = wave
        found |= self._encode(waiting)
        return [found.get(path) for path in paths]

    def silence_states(self, lengths: Iterable[int]) -> list[Tensor]:
        """States of digital silence of so many samples each."""
        lengths = list(lengths)
        found: dict[Hashable, Tensor] = {key: self._kept[key] for key in set(lengths) if key in self._kept}
        found |= self._encode({length: np.zeros(length, np.float32) for length in set(lengths) - found.keys()})
        return [found[length] for length in lengths]

    def _load(self, path: str) -> np.ndarray | None:
        if path in self.broken:
            return None
        try:
            wave = self.clips.load(path)
        except AudioError as error:
            self.broken[path] = str(error)
            return None
        if self.processor.num_positions(len(wave)) < 1:
            self.broken[path] = f"{path}: {len(wave)} samples are too short to be heard"
            return None
        self._lengths[path] = len(wave)
        return wave

    def _encode(self, waves: dict[Hashable, np.ndarray]) -> dict[Hashable, Tensor]:
        """Takes from the cache what it has, encodes the rest by length, so that a batch holds little padding."""
        encoded: dict[Hashable, Tensor] = {}
        if self.cache is not None:
            hashes = {key: audio_hash(wave) for key, wave in waves.items()}
            for key, digest in hashes.items():
                known = self.cache.get(digest)
                if known is not None:
                    encoded[key] = known.float()
                    self._keep(key, encoded[key])
        order = sorted(waves.keys() - encoded.keys(), key=lambda key: len(waves[key]))
        for start in range(0, len(order), ENCODER_BATCH):
            keys = order[start : start + ENCODER_BATCH]
            with torch.inference_mode():
                states = encode_clips(self.model, self.processor, [waves[key] for key in keys])
            for key, value in zip(keys, states, strict=True):
                encoded[key] = value.clone()
                self._keep(key, encoded[key])
                if self.cache is not None:
                    self.cache.put(hashes[key], encoded[key])
        return encoded

    def _keep(self, key: Hashable, states: Tensor) -> None:
        self._kept[key] = states
        self._num_bytes += states.nbytes
        while self._num_bytes > self.bytes_kept and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.nbytes
