"""Front ends: a waveform -> the frames that an encoder reads. Each is a small object that is saved with the processor.

Whisper's log-mel (arXiv 2212.04356), Kaldi's filterbank as BEATs, AST and w2v-BERT want it, CLAP's log-mel, and the
bare waveform. Each agrees with transformers' own feature extractor (tested). NumPy only; imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lalm.audio.lengths import Chain, Frames, Hops, LengthRule, Scale, chunk_bounds

KALDI_WINDOW_SAMPLES, KALDI_HOP_SAMPLES, KALDI_FFT = 400, 160, 512
KALDI_LOW_HZ = 20.0
KALDI_PREEMPHASIS = 0.97
KALDI_SCALE = 2.0**15
"""Kaldi reads samples as 16-bit integers."""
NORMALISATION_EPSILON = 1e-7
"""Added to a variance before its root, as transformers' extractors for speech do."""
CLAP_WINDOW_SAMPLES, CLAP_HOP_SAMPLES = 1024, 480
CLAP_FLOOR = 1e-10
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


class BatchedKaldiFrontEnd(KaldiFrontEnd):
    """Kaldi's filterbank of a piece filled to a whole chunk, counted as BEATs' published code counts a padded batch.

    That code cuts the samples into as many equal runs as there are frames, and calls a frame real where its run holds
    a sample of the clip; so frames behind the clip's end, which hear the filler, count as real.
    """

    kind: Literal["kaldi_batch"] = "kaldi_batch"  # type: ignore[assignment]
    padding: Literal["full"] = "full"

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        padded = np.pad(waveform, (0, self.chunk_samples - len(waveform)))
        features = kaldi_filterbank(padded, self.num_mel_bins)
        return AudioChunk(features, min(self.length_rule().count(len(waveform)), features.shape[1]))

    def length_rule(self) -> LengthRule:
        chunk_frames = super().length_rule().count(self.chunk_samples)
        return Hops(hop_samples=self.chunk_samples // max(chunk_frames, 1))


class AstFrontEnd(_FrontEnd):
    """AST's filterbank (arXiv 2104.01778): Kaldi's with a Hann window on samples in [-1, 1], normalised by constants.

    `padding: full` puts frames of zeros behind the clip's, before the normalisation, up to `chunk_frames`.
    """

    kind: Literal["ast"] = "ast"
    num_mel_bins: int = Field(default=128, gt=0)
    chunk_frames: int = Field(default=1024, gt=0)
    mean: float = -4.2677393
    std: float = Field(default=4.5689974, gt=0)
    """Of AudioSet, as published; the features are divided by twice the deviation."""

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        frames = kaldi_filterbank(waveform, self.num_mel_bins, window="hann", scale=1.0)
        real = frames.shape[1]
        filler = self.chunk_frames - real if self.padding == "full" else 0
        return AudioChunk((np.pad(frames, ((0, 0), (0, filler))) - self.mean) / (2 * self.std), real)

    def length_rule(self) -> LengthRule:
        return Frames(window_samples=KALDI_WINDOW_SAMPLES, hop_samples=KALDI_HOP_SAMPLES)


class SeamlessFrontEnd(_FrontEnd):
    """w2v-BERT 2.0's filterbank (arXiv 2312.05187): Kaldi's, each bin normalised over the piece, frames in pairs.

    A last frame without partner counts in the normalisation and is then left out, as in transformers' mask.
    """

    kind: Literal["seamless"] = "seamless"
    num_mel_bins: int = Field(default=80, gt=0)
    stacked_frames: int = Field(default=2, gt=0)

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        frames = kaldi_filterbank(waveform, self.num_mel_bins)
        stacks = frames.shape[1] // self.stacked_frames
        if not stacks:
            return AudioChunk(np.zeros((self.num_mel_bins * self.stacked_frames, 0), np.float32), 0)
        deviation = np.sqrt(frames.var(axis=1, ddof=min(1, frames.shape[1] - 1)) + NORMALISATION_EPSILON)
        frames = (frames - frames.mean(axis=1, keepdims=True)) / deviation[:, None]
        stacked = frames[:, : stacks * self.stacked_frames].T.reshape(stacks, -1).T
        return AudioChunk(np.ascontiguousarray(stacked), stacks)

    def length_rule(self) -> LengthRule:
        frames = Frames(window_samples=KALDI_WINDOW_SAMPLES, hop_samples=KALDI_HOP_SAMPLES)
        return Chain(rules=(frames, Scale(per=self.stacked_frames)))


class WaveformFrontEnd(_FrontEnd):
    """The samples themselves, `M` 1: wav2vec 2.0 and its relatives, codecs.

    `is_normalised` gives each piece zero mean and unit variance, as transformers does for a whole clip.
    """

    kind: Literal["waveform"] = "waveform"
    is_normalised: bool = False

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        wave = waveform.astype(np.float32, copy=False)
        if self.is_normalised:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + NORMALISATION_EPSILON)
        return AudioChunk(wave[None], len(wave))

    def length_rule(self) -> LengthRule:
        return Chain()


class ClapFrontEnd(_FrontEnd):
    """CLAP's log-mel in decibels (arXiv 2211.06687): 1024-sample windows every 480 samples at 48 kHz.

    A shorter piece is repeated as often as it fits whole and then filled with silence ("repeat"), or filled with
    silence at once. Real frames are one for each started hop of the clip.
    """

    kind: Literal["clap"] = "clap"
    sample_rate_hz: int = 48000
    chunk_seconds: float = Field(default=10.0, gt=0)
    num_mel_bins: int = Field(default=64, gt=0)
    low_hz: float = Field(default=50.0, ge=0)
    high_hz: float = Field(default=14000.0, gt=0)
    mel_scale: Literal["slaney", "htk"] = "slaney"
    """`slaney` with triangles of unit area, or `htk` with triangles of unit height (checkpoints with fusion)."""
    fill: Literal["repeat", "silence"] = "repeat"

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        size = self.chunk_samples
        filled = np.tile(waveform, size // len(waveform)) if self.fill == "repeat" else waveform
        filled = np.pad(filled, (0, size - len(filled)))
        return AudioChunk(self._log_mel(filled), self.length_rule().count(len(waveform)))

    @property
    def chunk_frames(self) -> int:
        """Frames of every piece: those of a whole chunk, and the one centred on its end."""
        return self.chunk_samples // CLAP_HOP_SAMPLES + 1

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        padded = np.pad(waveform.astype(np.float64), CLAP_WINDOW_SAMPLES // 2, mode="reflect")
        frames = _frames(padded, CLAP_WINDOW_SAMPLES, CLAP_HOP_SAMPLES)
        spectrum = np.fft.rfft(frames * _hann(CLAP_WINDOW_SAMPLES))
        filters = _mel_filters(
            self.num_mel_bins,
            CLAP_WINDOW_SAMPLES // 2 + 1,
            self.sample_rate_hz,
            self.low_hz,
            self.high_hz,
            self.mel_scale,
        )
        mel = filters @ (spectrum.real**2 + spectrum.imag**2).T
        return (10 * np.log10(np.maximum(mel, CLAP_FLOOR))).astype(np.float32)

    def length_rule(self) -> LengthRule:
        return Hops(hop_samples=CLAP_HOP_SAMPLES)


FrontEnd = Annotated[
    WhisperFrontEnd
    | KaldiFrontEnd
    | BatchedKaldiFrontEnd
    | AstFrontEnd
    | SeamlessFrontEnd
    | WaveformFrontEnd
    | ClapFrontEnd,
    Field(discriminator="kind"),
]
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
    filters = _mel_filters(num_mel_bins, half + 1, 16000, 0.0, 8000.0, "slaney").astype(np.float32)
    mel = filters @ power.T.astype(np.float32)
    log = np.full(
        (num_mel_bins, num_frames), np.log10(WHISPER_FLOOR), np.float32
    )  # Frames of silence need no transform.
    log[:, :heard] = np.log10(np.maximum(mel, WHISPER_FLOOR))
    return (np.maximum(log, log.max() - WHISPER_DYNAMIC_RANGE) + 4.0) / 4.0


def kaldi_filterbank(
    waveform: np.ndarray, num_mel_bins: int, *, window: Literal["povey", "hann"] = "povey", scale: float = KALDI_SCALE
) -> np.ndarray:
    """`[S]` at 16 kHz in [-1, 1] -> `[M, F]` natural-log energies of the signal times `scale`; `F` may be 0."""
    if len(waveform) < KALDI_WINDOW_SAMPLES:
        return np.zeros((num_mel_bins, 0), np.float32)
    frames = _frames(waveform.astype(np.float64) * scale, KALDI_WINDOW_SAMPLES, KALDI_HOP_SAMPLES)
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - KALDI_PREEMPHASIS * before) * _kaldi_window(KALDI_WINDOW_SAMPLES, window)
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
def _kaldi_window(length: int, window: Literal["povey", "hann"]) -> np.ndarray:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    return hann**0.85 if window == "povey" else hann


@lru_cache
def _mel_filters(
    num_mel_bins: int, num_bins: int, rate_hz: int, low_hz: float, high_hz: float, scale: Literal["slaney", "htk"]
) -> np.ndarray:
    """`[M, num_bins]` triangles, straight on the frequency axis.

    Slaney's scale is linear below 1 kHz and logarithmic above, with triangles of unit area; HTK's are of unit height.
    """
    step = np.log(6.4) / 27

    def to_mel(hz: float) -> float:
        if scale == "htk":
            return 2595.0 * np.log10(1.0 + hz / 700.0)
        return hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) / step

    mels = np.linspace(to_mel(low_hz), to_mel(high_hz), num_mel_bins + 2)
    if scale == "htk":
        edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    else:
        edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    bins = np.linspace(0, rate_hz / 2, num_bins)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return triangles * 2 / (high - low) if scale == "slaney" else triangles


@lru_cache
def _kaldi_mel(num_mel_bins: int, rate_hz: int = 16000) -> np.ndarray:
    """`[M, 256]`: triangles that are straight on the mel axis, from 20 Hz to half the rate."""

    def to_mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    edges = np.linspace(to_mel(KALDI_LOW_HZ), to_mel(rate_hz / 2), num_mel_bins + 2)
    bins = to_mel(np.arange(KALDI_FFT // 2) * rate_hz / KALDI_FFT)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
