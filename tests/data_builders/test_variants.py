"""Waveform operations keep what they promise: length, level, band, content."""

import random

import numpy as np
import pytest
from invented_corpora import tone

from data_builders.clips import SAMPLE_RATE_HZ
from data_builders.variants import apply_variant, at_level, draw_variant, low_passed, padded, trimmed, with_peak

NOISE = np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ + 7).astype(np.float32) * 0.1


def test_low_passed_keeps_what_is_below_and_the_length():
    wave = low_passed(NOISE)
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE_HZ)
    assert len(wave) == len(NOISE)
    assert spectrum[frequency > 4_100].sum() < 1e-4 * spectrum.sum()
    below = np.abs(np.fft.rfft(NOISE)) ** 2
    assert spectrum[frequency < 3_600].sum() == pytest.approx(below[frequency < 3_600].sum(), rel=0.02)


def test_trimmed_drops_silence_and_caps_the_length():
    silence = np.zeros(8_000, np.float32)
    wave = trimmed(np.concatenate([silence, tone(440, 0.5), silence]), 4.0)
    assert len(wave) / SAMPLE_RATE_HZ == pytest.approx(0.5, abs=0.05)
    assert len(trimmed(tone(440, 2.0), 0.7)) == int(0.7 * SAMPLE_RATE_HZ)
    assert not len(trimmed(silence, 1.0))


def test_levels_are_as_stated():
    assert 20 * np.log10(np.sqrt(np.mean(at_level(NOISE, -26.0) ** 2))) == pytest.approx(-26, abs=0.01)
    assert np.abs(with_peak(NOISE, 0.5)).max() == pytest.approx(0.5, abs=1e-6)
    assert not at_level(np.zeros(10, np.float32), -20).any()


def test_padded_reaches_the_shortest_length_and_no_more():
    assert len(padded(tone(440, 0.02))) == int(0.4 * SAMPLE_RATE_HZ)
    assert len(padded(tone(440, 0.6))) == len(tone(440, 0.6))


def test_a_variant_is_faster_and_quieter_and_repeatable():
    settings = {"speed": 1.25, "gain_db": -6.0, "noise_db": -60.0}
    wave = apply_variant(tone(440, 1.0), settings, 1)
    assert len(wave) / SAMPLE_RATE_HZ == pytest.approx(0.8, abs=0.01)
    assert np.abs(wave).max() == pytest.approx(0.25, rel=0.05)
    assert np.array_equal(wave, apply_variant(tone(440, 1.0), settings, 1))
    assert draw_variant(random.Random(1), speech=True) == draw_variant(random.Random(1), speech=True)
