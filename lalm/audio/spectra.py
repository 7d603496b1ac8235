"""Spectrograms in NumPy: the log-mels of Whisper, Granite Speech and CLAP, Kaldi's filterbank. Imports no torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

KALDI_WINDOW_SAMPLES, KALDI_HOP_SAMPLES, KALDI_FFT = 400, 160, 512
KALDI_LOW_HZ = 20.0
KALDI_PREEMPHASIS = 0.97
KALDI_SCALE = 2.0**15
"""Kaldi reads samples as 16-bit integers."""
CLAP_WINDOW_SAMPLES, CLAP_HOP_SAMPLES = 1024, 480
CLAP_FLOOR = 1e-10
WHISPER_WINDOW_SAMPLES, WHISPER_HOP_SAMPLES = 400, 160
WHISPER_FLOOR = 1e-10
WHISPER_DYNAMIC_RANGE = 8.0
"""Log10 units below the loudest bin at which Whisper's spectrogram is cut."""
GRANITE_FFT = 512
"""Granite Speech's windows are Whisper's, with as many zeros on both sides."""


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


def granite_log_mel(waveform: np.ndarray, num_mel_bins: int) -> np.ndarray:
    """`[S]` at 16 kHz -> `[M, S // 160 + 1]`, frames centred on every hop: Whisper's scaling of HTK's mel bins."""
    half = GRANITE_FFT // 2
    signal = waveform.astype(np.float32, copy=False)
    padded = np.pad(signal, half, mode="reflect" if len(signal) > half else "constant")
    window = np.pad(_hann(WHISPER_WINDOW_SAMPLES), (GRANITE_FFT - WHISPER_WINDOW_SAMPLES) // 2)
    spectrum = np.fft.rfft(_frames(padded, GRANITE_FFT, WHISPER_HOP_SAMPLES) * window)
    power = spectrum.real**2 + spectrum.imag**2
    mel = _mel_filters(num_mel_bins, half + 1, 16000, 0.0, 8000.0, "htk") @ power.T
    log = np.log10(np.maximum(mel, WHISPER_FLOOR)).astype(np.float32)
    return np.maximum(log, log.max() - WHISPER_DYNAMIC_RANGE) / 4 + 1


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


def clap_log_mel(
    waveform: np.ndarray,
    num_mel_bins: int,
    rate_hz: int,
    low_hz: float,
    high_hz: float,
    *,
    scale: Literal["slaney", "htk"],
) -> np.ndarray:
    """`[S]` -> `[M, S // 480 + 1]` decibels, frames centred on every hop. `scale` is that of the mel bins."""
    padded = np.pad(waveform.astype(np.float64), CLAP_WINDOW_SAMPLES // 2, mode="reflect")
    frames = _frames(padded, CLAP_WINDOW_SAMPLES, CLAP_HOP_SAMPLES)
    spectrum = np.fft.rfft(frames * _hann(CLAP_WINDOW_SAMPLES))
    filters = _mel_filters(num_mel_bins, CLAP_WINDOW_SAMPLES // 2 + 1, rate_hz, low_hz, high_hz, scale)
    mel = filters @ (spectrum.real**2 + spectrum.imag**2).T
    return (10 * np.log10(np.maximum(mel, CLAP_FLOOR))).astype(np.float32)


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
