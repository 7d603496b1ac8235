"""Front ends: a waveform -> the frames that an encoder reads. Each is a small object that is saved with the processor.

Whisper's log-mel (arXiv 2212.04356) and Kaldi's filterbank (BEATs, AST). NumPy only; imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lalm.audio.lengths import Frames, Hops, LengthRule, chunk_bounds

KALDI_WINDOW_SAMPLES, KALDI_HOP_SAMPLES, KALDI_FFT = 400, 160, 512
KALDI_LOW_HZ = 20.0
KALDI_PREEMPHASIS = 0.97
WHISPER_WINDOW_SAMPLES, WHISPER_HOP_SAMPLES = 400, 160
WHISPER_ROUND_FRAMES = 20
"""Without full padding, what Whisper is shown is rounded up to whole 0.2 s, so that clips can be run together."""
WHISPER_FLOOR = 1e-10
WHISPER_DYNAMIC_RANGE = 8.0
"""Log10 units below the loudest bin at which Whisper's spectrogram is cut."""


@dataclass(frozen=True)
class AudioChunk:
    """A piece of a clip: `features [M, F]` float32, of which the first `num_frames` hold the clip itself."""

    features: np.ndarray
    num_frames: int


class _FrontEnd(BaseModel, ABC):
    model_config = ConfigDict(frozen=True, extra="forbid")
    sample_rate_hz: int = 16000
    chunk_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are cut into pieces of this length, which are encoded one by one."""
    padding: Literal["full", "real", "margin"] = "real"
    margin_seconds: float = Field(default=0.0, ge=0)

    @property
    def chunk_samples(self) -> int:
        """The longest piece, in samples."""
        return round(self.chunk_seconds * self.sample_rate_hz)

    def chunks(self, waveform: np.ndarray) -> list[AudioChunk]:
        """`[S]` at `sample_rate_hz` -> one or several chunks, in order; none for an empty clip."""
        return [self.extract(waveform[start:end]) for start, end in chunk_bounds(len(waveform), self.chunk_samples)]

    @abstractmethod
    def extract(self, waveform: np.ndarray) -> AudioChunk:
        """Frames of one piece that is no longer than a chunk."""

    @abstractmethod
    def length_rule(self) -> LengthRule:
        """Samples of one piece -> its real frames."""


class WhisperFrontEnd(_FrontEnd):
    """Whisper's log-mel spectrogram: 25 ms windows every 10 ms, Slaney mels, log10, cut 8 below the maximum.

    `padding` says what is appended to a piece: silence up to the whole chunk as in Whisper's training, nothing but what
    fills the last 0.2 s, or `margin_seconds` of silence.
    """

    kind: Literal["whisper"] = "whisper"
    num_mel_bins: int = Field(default=80, gt=0)

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        real = self.length_rule().count(len(waveform))
        return AudioChunk(whisper_log_mel(waveform, self.num_mel_bins, self.run_frames(real)), real)

    def run_frames(self, real_frames: int) -> int:
        """Frames that the encoder is shown for a piece of `real_frames`."""
        longest = self.chunk_samples // WHISPER_HOP_SAMPLES
        if self.padding == "full":
            return longest
        margin = (
            round(self.margin_seconds * self.sample_rate_hz / WHISPER_HOP_SAMPLES) if self.padding == "margin" else 0
        )
        return min(longest, -(-(real_frames + margin) // WHISPER_ROUND_FRAMES) * WHISPER_ROUND_FRAMES)

    def length_rule(self) -> LengthRule:
        return Hops(hop_samples=WHISPER_HOP_SAMPLES)


class KaldiFrontEnd(_FrontEnd):
    """Kaldi's log filterbank as torchaudio's compliance module computes it: 25/10 ms, povey window, no dither.

    `padding` fills the waveform with zeros before framing: up to the whole chunk, not at all, or by `margin_seconds`.
    Whichever it is, real frames are those that lie wholly inside the clip.
    """

    kind: Literal["kaldi"] = "kaldi"
    num_mel_bins: int = Field(default=128, gt=0)

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        margin = round(self.margin_seconds * self.sample_rate_hz)
        wanted = {"full": self.chunk_samples, "real": len(waveform), "margin": len(waveform) + margin}[self.padding]
        padded = np.pad(waveform, (0, min(wanted, self.chunk_samples) - len(waveform)))
        return AudioChunk(kaldi_filterbank(padded, self.num_mel_bins), self.length_rule().count(len(waveform)))

    def length_rule(self) -> LengthRule:
        return Frames(window_samples=KALDI_WINDOW_SAMPLES, hop_samples=KALDI_HOP_SAMPLES)


FrontEnd = Annotated[WhisperFrontEnd | KaldiFrontEnd, Field(discriminator="kind")]
"""Any front end, told apart by `kind` when read from JSON."""


def whisper_log_mel(waveform: np.ndarray, num_mel_bins: int, num_frames: int) -> np.ndarray:
    """`[S]` at 16 kHz, with silence behind it -> `[M, num_frames]`, scaled as Whisper's encoder expects it."""
    half, hop = WHISPER_WINDOW_SAMPLES // 2, WHISPER_HOP_SAMPLES
    heard = min(num_frames, -(-(len(waveform) + WHISPER_WINDOW_SAMPLES) // hop))
    signal = np.pad(waveform.astype(np.float32, copy=False), (0, heard * hop - len(waveform)))
    padded = np.pad(signal, half, mode="reflect" if len(signal) > half else "constant")
    frames = _frames(padded, WHISPER_WINDOW_SAMPLES, hop)[:heard]
    spectrum = np.fft.rfft(frames * _hann(WHISPER_WINDOW_SAMPLES))
    power = spectrum.real**2 + spectrum.imag**2
    mel = _slaney_mel(num_mel_bins) @ power.T.astype(np.float32)
    log = np.full(
        (num_mel_bins, num_frames), np.log10(WHISPER_FLOOR), np.float32
    )  # Frames of silence need no transform.
    log[:, :heard] = np.log10(np.maximum(mel, WHISPER_FLOOR))
    return (np.maximum(log, log.max() - WHISPER_DYNAMIC_RANGE) + 4.0) / 4.0


def kaldi_filterbank(waveform: np.ndarray, num_mel_bins: int) -> np.ndarray:
    """`[S]` at 16 kHz in [-1, 1] -> `[M, F]` natural-log energies of the signal at 16-bit scale; `F` may be 0."""
    if len(waveform) < KALDI_WINDOW_SAMPLES:
        return np.zeros((num_mel_bins, 0), np.float32)
    frames = _frames(waveform.astype(np.float64) * 2**15, KALDI_WINDOW_SAMPLES, KALDI_HOP_SAMPLES)
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - KALDI_PREEMPHASIS * before) * _povey(KALDI_WINDOW_SAMPLES)
    spectrum = np.fft.rfft(frames, n=KALDI_FFT)
    power = (spectrum.real**2 + spectrum.imag**2)[:, : KALDI_FFT // 2]
    energies = _kaldi_mel(num_mel_bins) @ power.T
    return np.log(np.maximum(energies, np.finfo(np.float32).eps)).astype(np.float32)


def _frames(signal: np.ndarray, window: int, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(signal, window)[::hop]


@lru_cache
def _hann(length: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@lru_cache
def _povey(length: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85


@lru_cache
def _slaney_mel(num_mel_bins: int, rate_hz: int = 16000) -> np.ndarray:
    """`[M, 201]`: triangles of unit area on Slaney's scale, linear below 1 kHz and logarithmic above."""
    bins = np.linspace(0, rate_hz / 2, WHISPER_WINDOW_SAMPLES // 2 + 1)
    step = np.log(6.4) / 27
    top = 15 + np.log(rate_hz / 2 / 1000) / step
    mels = np.linspace(0, top, num_mel_bins + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return (triangles * 2 / (high - low)).astype(np.float32)


@lru_cache
def _kaldi_mel(num_mel_bins: int, rate_hz: int = 16000) -> np.ndarray:
    """`[M, 256]`: triangles that are straight on the mel axis, from 20 Hz to half the rate."""

    def to_mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    edges = np.linspace(to_mel(KALDI_LOW_HZ), to_mel(rate_hz / 2), num_mel_bins + 2)
    bins = to_mel(np.arange(KALDI_FFT // 2) * rate_hz / KALDI_FFT)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
