"""Pictures and sounds that other programs can read."""

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest

from lalm.evaluation.media import (
    CURVE_WIDTH,
    LETTER_WIDTH,
    SPECTROGRAM_BANDS,
    Curve,
    band_decibels,
    curve_svg,
    png,
    sound_uri,
    spectrogram_uri,
)


def decoded(uri):
    return base64.b64decode(uri.partition(",")[2])


def tone(hertz, rate=16_000, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def test_png_is_read_by_pillow():
    image = pytest.importorskip("PIL.Image")
    shades = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    with image.open(io.BytesIO(png(shades))) as picture:
        assert picture.size == (4, 3)
        assert np.array_equal(np.asarray(picture), shades)


def test_a_higher_tone_stands_higher():
    low, high = (band_decibels(tone(hertz), 16_000).mean(axis=1).argmax() for hertz in (200, 3000))
    assert 0 < low < high < SPECTROGRAM_BANDS


@pytest.mark.parametrize("num_samples", [1, 100, 512, 40_000])
def test_any_length_has_a_picture(num_samples):
    assert decoded(spectrogram_uri(np.zeros(num_samples, np.float32), 16_000)).startswith(b"\x89PNG")


def test_sound_is_flac_at_16_khz():
    soundfile = pytest.importorskip("soundfile")
    for rate in (16_000, 48_000):
        wave, read_rate = soundfile.read(io.BytesIO(decoded(sound_uri(0.5 * tone(440, rate), rate))))
        assert read_rate == 16_000
        assert len(wave) == 16_000
        assert np.abs(wave).max() == pytest.approx(0.5, abs=0.01)


def test_curve_draws_each_stage_and_escapes_its_name():
    svg = curve_svg([Curve("a<b", [1, 2, 3], [3.0, 2.0, 1.0]), Curve("two", [1, 2], [1.0, float("nan")])], "loss")
    assert svg.count("<polyline") == 4
    assert "a&lt;b" in svg
    assert "nan" not in svg
    assert curve_svg([Curve("a", [1], [1.0])], "loss") == ""


def test_names_of_short_stages_do_not_lie_on_one_another():
    """Each in a row of its own, all within the picture; of the steps at which they end, those are said that fit."""
    names = ("instruct", "settle", "settle_less", "settle_least", "end")
    curves = [Curve(name, [1, count], [1.0, 0.5]) for name, count in zip(names, (480, 50, 50, 50, 10), strict=True)]
    svg = curve_svg(curves, "loss")
    found = re.findall(r'class="stage stage\d" x="([\d.]+)" y="(\d+)">(\w+)<', svg)
    assert [name for _, _, name in found] == list(names)
    boxes = [(float(x), float(x) + LETTER_WIDTH * len(name), y) for x, y, name in found]
    assert all(end <= CURVE_WIDTH for _, end, _ in boxes)
    for number, (start, end, y) in enumerate(boxes):
        assert not any(start < other[1] and other[0] < end and y == other[2] for other in boxes[number + 1 :])
    ends = [(float(x), said) for x, said in re.findall(r'x="([\d.]+)" y="\d+" text-anchor="end">(step \d+)<', svg)]
    assert [said for _, said in ends] == ["step 480", "step 50", "step 50", "step 50"], "the last has no room"
    assert all(b - LETTER_WIDTH * len(said) >= a for (a, _), (b, said) in pairwise(ends))
