"""The picture of a clip: its waveform over its spectrogram, as a PNG."""

from __future__ import annotations

import io

import numpy as np

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 9.0, 3.2, 100
WINDOW_SAMPLES, RANGE_DB = 512, 80.0
MAX_COLUMNS = 900


def clip_picture(wave: np.ndarray, sample_rate_hz: int) -> bytes:
    """A clip `[S]` -> PNG: extremes of the wave above, power by time and frequency below, one time axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seconds = len(wave) / sample_rate_hz
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    low, high = extremes(wave)
    times = np.linspace(0, seconds, len(low))
    above.fill_between(times, low, high, color="#2a78b8", linewidth=0.4)
    top = max(1e-3, float(np.abs(wave).max(initial=0)))
    above.set_ylim(-top, top)
    above.set_ylabel("wave")
    extent = (0.0, seconds, 0.0, sample_rate_hz / 2000)
    below.imshow(decibels(wave), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-RANGE_DB, vmax=0)
    below.set_ylabel("kHz")
    below.set_xlabel("seconds")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def extremes(wave: np.ndarray, columns: int = MAX_COLUMNS) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest sample of each of at most `columns` equal stretches."""
    edges = np.linspace(0, len(wave), min(columns, max(1, len(wave))) + 1).astype(int)[:-1]
    return np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)


def decibels(wave: np.ndarray) -> np.ndarray:
    """`[S]` -> `[frequencies, columns]` of power in dB below the loudest, at least -RANGE_DB."""
    wave = np.pad(np.asarray(wave, np.float32), WINDOW_SAMPLES // 2)
    columns = min(MAX_COLUMNS, max(2, len(wave) // (WINDOW_SAMPLES // 4)))
    starts = np.linspace(0, len(wave) - WINDOW_SAMPLES, columns).astype(int)
    frames = wave[starts[:, None] + np.arange(WINDOW_SAMPLES)] * np.hanning(WINDOW_SAMPLES)
    power = np.abs(np.fft.rfft(frames, axis=1)).T ** 2
    return np.maximum(10 * np.log10(power / max(power.max(), 1e-12) + 1e-12), -RANGE_DB)
