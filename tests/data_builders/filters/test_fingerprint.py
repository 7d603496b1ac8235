"""The fingerprint against gain, codec, noise, shift, telephone; and against strangers."""

import numpy as np
import pytest
from invented_rows import ogg, sound
from scipy import signal

from data_builders.filters.fingerprint import HOP_SAMPLES, FingerprintIndex, error_rate, fingerprint


def telephone(wave):
    eight = signal.resample_poly(wave, 1, 2)
    return signal.resample_poly(np.round(eight * 127) / 127, 2, 1).astype(np.float32)


CHANGES = {
    "gain": lambda wave: wave * 0.07,
    "inverted": lambda wave: -wave,
    "codec": ogg,
    "noise": lambda wave: wave + np.random.default_rng(9).normal(0, 0.003, len(wave)).astype(np.float32),
    "shift of 200 samples": lambda wave: wave[200:],
    "half a hop later": lambda wave: np.concatenate([np.zeros(HOP_SAMPLES // 2, np.float32), wave]),
    "0.7 s later": lambda wave: np.concatenate([np.zeros(11200, np.float32), wave]),
    "crop": lambda wave: wave[8000:40000],
    "telephone": telephone,
}


@pytest.fixture(scope="module")
def index():
    index = FingerprintIndex()
    for seed in range(12):
        index.add(str(seed), fingerprint(sound(seed)))
    return index


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(index, change):
    for seed in (2, 7):
        match = index.find(fingerprint(CHANGES[change](sound(seed))))
        assert match is not None
        assert match.id == str(seed)


def test_strangers_are_not_found(index):
    assert [index.find(fingerprint(sound(seed))) for seed in range(100, 112)] == [None] * 12


def test_the_offset_is_right(index):
    match = index.find(fingerprint(sound(4)[8000:]))
    assert match.offset_seconds == pytest.approx(0.5, abs=0.04)


def test_short_clips_are_found_and_told_apart():
    index = FingerprintIndex()
    clips = [sound(200 + number, 0.5) for number in range(8)]
    for number, clip in enumerate(clips):
        assert index.find(fingerprint(clip)) is None
        index.add(str(number), fingerprint(clip))
    assert [index.find(fingerprint(ogg(clip) * 0.3)).id for clip in clips] == [str(number) for number in range(8)]


def test_gain_changes_no_bit():
    assert np.array_equal(fingerprint(sound(1)), fingerprint(sound(1) * 0.25))


def test_silence_has_no_fingerprint(index):
    assert len(fingerprint(np.zeros(16000, np.float32))) == 0
    assert len(fingerprint(np.zeros(0, np.float32))) == 0
    assert index.find(fingerprint(np.zeros(16000, np.float32))) is None


def test_error_rate_counts_bits_of_the_overlap():
    first = np.array([1, 0xFF, 7, 8], np.uint32)
    assert error_rate(first, np.array([0xFE, 7], np.uint32), 1) == (1 / 64, 2)
    assert error_rate(first, first, 9) == (1.0, 0)
