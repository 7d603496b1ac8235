"""What a page shows and plays without another file: sound, spectrograms and curves as data URIs or inline SVG."""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PAGE_RATE_HZ = 16_000
SPECTROGRAM_BANDS = 72
SPECTROGRAM_COLUMNS = 420
LOWEST_HZ = 60.0
RANGE_DB = 70.0
WINDOW_SAMPLES = 512
_RAMP = ((13, 12, 29), (59, 28, 92), (128, 37, 116), (201, 66, 92), (244, 132, 64), (253, 231, 160))
"""Colours from silence to the loudest band."""

CURVE_WIDTH, CURVE_HEIGHT = 920, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 26, 34


def data_uri(data: bytes, media_type: str) -> str:
    """Bytes as the address of an `src` attribute."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def sound_uri(waveform: np.ndarray, sample_rate_hz: int) -> str:
    """A clip `[S]` as 16-bit FLAC at 16 kHz, which browsers play and which no clip loses by."""
    import soundfile
    import soxr

    if sample_rate_hz != PAGE_RATE_HZ:
        waveform = soxr.resample(waveform, sample_rate_hz, PAGE_RATE_HZ)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1, 1), PAGE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return data_uri(buffer.getvalue(), "audio/flac")


def spectrogram_uri(waveform: np.ndarray, sample_rate_hz: int) -> str:
    """A clip `[S]` as a small PNG: time to the right, pitch upwards on a logarithmic scale, loudness as colour."""
    decibels = band_decibels(waveform, sample_rate_hz)
    floor = decibels.max() - RANGE_DB
    shades = np.clip(255 * (decibels - floor) / RANGE_DB, 0, 255).astype(np.uint8)
    return data_uri(png(shades[::-1]), "image/png")


def band_decibels(waveform: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Power of log-spaced frequency bands. `[S]` -> `[SPECTROGRAM_BANDS, columns]`, lowest band first."""
    wave = np.pad(np.asarray(waveform, np.float32), WINDOW_SAMPLES // 2)
    num_columns = min(SPECTROGRAM_COLUMNS, max(1, len(waveform) // 64))
    starts = np.linspace(0, len(wave) - WINDOW_SAMPLES, num_columns).astype(int)
    frames = wave[starts[:, None] + np.arange(WINDOW_SAMPLES)] * np.hanning(WINDOW_SAMPLES)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    centres = np.geomspace(LOWEST_HZ, sample_rate_hz / 2, SPECTROGRAM_BANDS) * WINDOW_SAMPLES / sample_rate_hz
    bins = np.arange(power.shape[1])
    bands = np.stack([np.interp(centres, bins, row) for row in power], axis=1)
    return 10 * np.log10(bands + 1e-8)


def png(shades: np.ndarray) -> bytes:
    """Shades `[height, width]` of 0-255 as a PNG with the palette of `_RAMP`."""
    height, width = shades.shape
    stops = np.linspace(0, 255, len(_RAMP))
    palette = np.stack([np.interp(np.arange(256), stops, channel) for channel in zip(*_RAMP, strict=True)], axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(shades, np.uint8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


LETTER_WIDTH = 7.5
"""Of the curves' labels (12 px, half bold), a little more than most letters take."""
NUM_COLOURS = 5


@dataclass(frozen=True)
class Curve:
    """One stage's losses, in order."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def curve_svg(curves: Sequence[Curve], label: str) -> str:
    """Curves one after another on one axis of steps; each value faint, their running mean strong."""
    curves = [curve for curve in curves if len(curve.values) > 1]
    if not curves:
        return ""
    values = np.concatenate([np.asarray(curve.values, float) for curve in curves])
    top = float(np.nanpercentile(values, 99.5)) * 1.05
    low = 0.0 if float(np.nanmin(values)) < 0.5 * top else float(np.nanmin(values)) * 0.95
    offsets, total = [], 0.0
    for curve in curves:
        offsets.append(total)
        total += max(curve.steps)

    def x(step: float) -> float:
        return _LEFT + (CURVE_WIDTH - _LEFT - _RIGHT) * step / total

    def y(value: float) -> float:
        share = (min(value, top) - low) / max(top - low, 1e-9)
        return _TOP + (CURVE_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = [
        f'<svg class="curve" viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" role="img" aria-label="{html.escape(label)}">'
    ]
    for value in np.linspace(low, top, 5):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{CURVE_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    names, steps_ends = _Labels(), _Labels()
    for number, (curve, offset) in enumerate(zip(curves, offsets, strict=True)):
        steps = [offset + step for step in curve.steps]
        colour = f"stage{number % NUM_COLOURS}"
        parts.append(f'<polyline class="raw {colour}" points="{_points(steps, curve.values, x, y)}"/>')
        parts.append(f'<polyline class="mean {colour}" points="{_points(steps, _running_mean(curve.values), x, y)}"/>')
        if number:
            parts.append(
                f'<line class="border" x1="{x(offset):.1f}" x2="{x(offset):.1f}" y1="{_TOP}" '
                f'y2="{CURVE_HEIGHT - _BOTTOM}"/>'
            )
        start, row = names.place(x(offset) + 6, curve.name)
        parts.append(
            f'<text class="stage {colour}" x="{start:.1f}" y="{_TOP - 9 + 15 * row}">{html.escape(curve.name)}</text>'
        )
        end, steps_said = x(offset + max(curve.steps)), f"step {max(curve.steps):g}"
        if steps_ends.place(end - LETTER_WIDTH * len(steps_said), steps_said)[1] == 0:
            parts.append(
                f'<text class="tick" x="{end:.1f}" y="{CURVE_HEIGHT - 12}" text-anchor="end">{steps_said}</text>'
            )
    return "".join([*parts, "</svg>"])


class _Labels:
    """Rows in which texts, placed from the left to the right, do not lie on one another."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def place(self, start: float, text: str) -> tuple[float, int]:
        """Where a text that should begin at `start` begins, so that it ends within the picture, and its row."""
        width = LETTER_WIDTH * len(text)
        start = min(start, CURVE_WIDTH - _RIGHT - width)
        row = next((row for row, end in enumerate(self._ends) if end <= start), len(self._ends))
        self._ends[row : row + 1] = [start + width]
        return start, row


def _points(steps: Sequence[float], values: Sequence[float], x, y) -> str:
    return " ".join(
        f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True) if np.isfinite(value)
    )


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the curve, so that the trend stands out from the batches."""
    keep = 1 - 1 / max(1.0, len(values) / 20)
    mean, out = float(values[0]), []
    for value in values:
        mean = keep * mean + (1 - keep) * float(value) if np.isfinite(value) else mean
        out.append(mean)
    return out
