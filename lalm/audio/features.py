"""Front ends: a waveform -> the frames that an encoder reads. Each is a small object that is saved with the processor.

Whisper's log-mel (arXiv 2212.04356) and Granite Speech's, Kaldi's filterbank as BEATs, AST and w2v-BERT want it, CLAP's
log-mel, and the bare waveform. Each agrees with transformers' own feature extractor (tested). Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lalm.audio.lengths import Chain, Constant, Conv, Frames, Hops, LengthRule, Scale, chunk_bounds
from lalm.audio.spectra import (
    CLAP_HOP_SAMPLES,
    GRANITE_FFT,
    KALDI_HOP_SAMPLES,
    KALDI_WINDOW_SAMPLES,
    WHISPER_HOP_SAMPLES,
    clap_log_mel,
    granite_log_mel,
    kaldi_filterbank,
    whisper_log_mel,
)

NORMALISATION_EPSILON = 1e-7
"""Added to a variance before its root, as transformers' extractors for speech do."""
WHISPER_ROUND_FRAMES = 20
"""Without full padding, what Whisper is shown is rounded up to whole 0.2 s, so that clips can be run together."""


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


class VoxtralFrontEnd(WhisperFrontEnd):
    """Whisper's log-mel of a whole clip filled up to whole chunks, and only then cut (Voxtral, arXiv 2507.13264).

    So windows reach over a chunk's border, and the cut below the maximum is one for the clip. `silence` says whether
    the frames that fill the last chunk count as the clip's, as published, or not.
    """

    kind: Literal["voxtral"] = "voxtral"  # type: ignore[assignment]
    padding: Literal["full"] = "full"
    silence: Literal["kept", "dropped"] = "kept"

    def chunks(self, waveform: np.ndarray) -> list[AudioChunk]:
        bounds = chunk_bounds(len(waveform), self.chunk_samples)
        if not bounds:
            return []
        frames = whisper_log_mel(waveform, self.num_mel_bins, len(bounds) * self.chunk_frames)
        pieces = np.split(frames, len(bounds), axis=1)
        counts = [self.length_rule().count(end - start) for start, end in bounds]
        return [AudioChunk(np.ascontiguousarray(piece), count) for piece, count in zip(pieces, counts, strict=True)]

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        return self.chunks(waveform)[0]

    @property
    def chunk_frames(self) -> int:
        """Frames of every chunk."""
        return self.chunk_samples // WHISPER_HOP_SAMPLES

    def length_rule(self) -> LengthRule:
        return Constant(outputs=self.chunk_frames) if self.silence == "kept" else super().length_rule()


class GraniteSpeechFrontEnd(_FrontEnd):
    """Granite Speech's log-mel (arXiv 2505.08699), frames in pairs: 50 a second. A last frame alone is left out.

    The cut below the maximum is made before that, so that the frame counts in it.
    """

    kind: Literal["granite_speech"] = "granite_speech"
    num_mel_bins: int = Field(default=80, gt=0)
    stacked_frames: int = Field(default=2, gt=0)

    def extract(self, waveform: np.ndarray) -> AudioChunk:
        stacks = self.length_rule().count(len(waveform))
        frames = granite_log_mel(waveform, self.num_mel_bins)[:, : stacks * self.stacked_frames]
        stacked = frames.T.reshape(stacks, self.num_mel_bins * self.stacked_frames).T
        return AudioChunk(np.ascontiguousarray(stacked), stacks)

    def length_rule(self) -> LengthRule:
        frames = Conv(kernel=GRANITE_FFT, stride=WHISPER_HOP_SAMPLES, padding=GRANITE_FFT // 2)
        return Chain(rules=(frames, Scale(per=self.stacked_frames)))


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
        return AudioChunk(
            clap_log_mel(
                filled, self.num_mel_bins, self.sample_rate_hz, self.low_hz, self.high_hz, scale=self.mel_scale
            ),
            self.length_rule().count(len(waveform)),
        )

    @property
    def chunk_frames(self) -> int:
        """Frames of every piece: those of a whole chunk, and the one centred on its end."""
        return self.chunk_samples // CLAP_HOP_SAMPLES + 1

    def length_rule(self) -> LengthRule:
        return Hops(hop_samples=CLAP_HOP_SAMPLES)


FrontEnd = Annotated[
    WhisperFrontEnd
    | VoxtralFrontEnd
    | GraniteSpeechFrontEnd
    | KaldiFrontEnd
    | BatchedKaldiFrontEnd
    | AstFrontEnd
    | SeamlessFrontEnd
    | WaveformFrontEnd
    | ClapFrontEnd,
    Field(discriminator="kind"),
]
"""Any front end, told apart by `kind` when read from JSON."""
