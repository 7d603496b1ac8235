"""Clips as paths and arrays, and their features at every front end's own rate."""

from __future__ import annotations

import numpy as np
import pytest

from lalm.audio.features import KaldiFrontEnd, WhisperFrontEnd
from lalm.errors import AudioError, DataError
from lalm.processing.clips import features_of, read_clip, sort_clips

WAVE = np.linspace(-0.5, 0.5, 8000, dtype=np.float32)


def test_clips_are_sorted_to_their_prompts():
    assert sort_clips(None, ["x", "y"]) == [[], []]
    assert sort_clips("a", ["x"]) == [["a"]]
    assert sort_clips(["a", "b"], ["x"]) == [["a", "b"]]
    assert sort_clips(["a", "b"], ["x", "y"]) == [["a"], ["b"]]
    assert sort_clips([["a"], [], ["b", "c"]], ["x", "y", "z"]) == [["a"], [], ["b", "c"]]
    [[row]] = sort_clips(WAVE, ["x"])
    assert row is WAVE
    with pytest.raises(DataError, match="2 groups of clips for 3 prompts"):
        sort_clips(["a", "b"], ["x", "y", "z"])
    with pytest.raises(DataError, match="audio without text"):
        sort_clips(["a"], [])


def test_arrays_are_mixed_down_and_resampled():
    assert np.array_equal(read_clip(np.stack([WAVE, -WAVE]), 16000, 16000), np.zeros(8000, np.float32))
    assert len(read_clip(WAVE, 8000, 16000)) == 16000
    assert read_clip(np.array([-32768, 16384], dtype=np.int16), 16000, 16000).tolist() == [-1.0, 0.5]
    assert np.array_equal(read_clip({"array": WAVE, "sampling_rate": 16000}, None, 16000), WAVE)


@pytest.mark.parametrize(
    ("clip", "rate", "message"),
    [
        (WAVE, None, "needs its rate: pass sampling_rate"),
        (WAVE[:0], 16000, "not empty"),
        (np.zeros((2, 3, 4)), 16000, r"this one is \(2, 3, 4\)"),
        (np.array([0.0, np.nan]), 16000, "not finite"),
        ("https://example.org/a.wav", None, "not fetched from a URL"),
    ],
)
def test_unusable_clips_are_refused(clip, rate, message):
    with pytest.raises(AudioError, match=message):
        read_clip(clip, rate, 16000)


def test_a_front_end_of_a_lower_rate_gets_every_started_sample():
    front_end = WhisperFrontEnd(padding="real", sample_rate_hz=16000)
    wave = np.zeros(44101, dtype=np.float32)
    inputs = features_of([front_end], [wave], 44100)
    assert inputs["feature_lengths"][0].tolist() == [101]


def test_front_ends_that_cut_a_clip_differently_count_their_own_chunks():
    front_ends = [WhisperFrontEnd(padding="real"), KaldiFrontEnd(chunk_seconds=10)]
    inputs = features_of(front_ends, [np.zeros(16000, np.float32), np.zeros(16000 * 12, np.float32)], 16000)
    assert [counts.tolist() for counts in inputs["chunk_counts"]] == [[1, 1], [1, 2]]
    assert [features.shape[:2] for features in inputs["input_features"]] == [(2, 80), (3, 128)]
