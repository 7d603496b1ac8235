"""The length rules are swept against the modules that they describe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import nn

from lalm.audio.features import KaldiFrontEnd, WhisperFrontEnd
from lalm.audio.lengths import (
    AtMost,
    Chain,
    Chunks,
    Constant,
    Conv,
    Frames,
    Hops,
    LengthRule,
    Parallel,
    Resample,
    Scale,
    Windows,
    chunk_bounds,
)

LENGTHS = range(1, 80)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (1, 1, 0), (5, 3, 0), (4, 4, 2), (10, 5, 0)]
)
def test_conv_is_pytorchs(kernel, stride, padding):
    module, rule = nn.Conv1d(1, 1, kernel, stride, padding), Conv(kernel=kernel, stride=stride, padding=padding)
    for length in LENGTHS:
        expected = 0 if length + 2 * padding < kernel else module(torch.zeros(1, 1, length)).shape[-1]
        assert rule.count(length) == expected, length


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 16000), (16000, 48000), (32000, 16000)])
def test_resample_is_what_the_resampler_gives(from_hz, to_hz):
    for length in (1, 2, 3, 160, 16001, 16002):
        given_length = len(soxr.resample(np.zeros(length, np.float32), from_hz, to_hz))
        assert abs(Resample(from_hz=from_hz, to_hz=to_hz).count(length) - given_length) <= 1
    assert Resample(from_hz=48000, to_hz=16000).count(4) == 2


@pytest.mark.parametrize("length", [1, 159, 160, 161, 399, 400, 401, 560, 4801, 16000])
def test_hops_and_frames_are_the_front_ends(length):
    wave = np.ones(length, np.float32)
    assert Hops(hop_samples=160).count(length) == WhisperFrontEnd().extract(wave).num_frames
    assert Frames(window_samples=400, hop_samples=160).count(length) == KaldiFrontEnd().extract(wave).features.shape[1]


def test_windows():
    keep, drop = (Windows(size=17, outputs=2, partial=partial) for partial in ("keep", "drop"))
    assert [keep.count(n) for n in (0, 1, 17, 18, 34)] == [0, 2, 2, 4, 4]
    assert [drop.count(n) for n in (0, 1, 17, 18, 34)] == [0, 2, 2, 2, 4]


def test_scale_and_constant():
    assert [Scale(times=8, per=16).count(n) for n in (0, 15, 16, 98, 998)] == [0, 0, 8, 48, 496]
    assert [Constant(outputs=32).count(n) for n in (0, 1, 999)] == [0, 32, 32]


def test_parallel_takes_the_longest_or_the_sum():
    rules = (Conv(kernel=2, stride=2), Constant(outputs=5))
    assert [Parallel(rules=rules).count(n) for n in (4, 20)] == [5, 10]
    assert [Parallel(rules=rules, join="sum").count(n) for n in (4, 20)] == [7, 15]


def test_at_most_is_a_limit():
    assert [AtMost(limit=3).count(length) for length in (0, 2, 3, 4)] == [0, 2, 3, 3]


@given(st.integers(0, 10_000), st.integers(1, 700))
def test_chunks_lose_nothing(length, size):
    bounds = chunk_bounds(length, size)
    assert sum(end - start for start, end in bounds) == length
    assert all(0 < end - start <= size for start, end in bounds)
    assert [start for start, _ in bounds[1:]] == [end for _, end in bounds[:-1]]
    rule = Windows(size=7)
    assert Chunks(size=size, rule=rule).count(length) == sum(math.ceil((end - start) / 7) for start, end in bounds)


def nested() -> Chain:
    piece = Chain(rules=(Hops(hop_samples=160), Conv(kernel=3, stride=2, padding=1)))
    return Chain(rules=(Chunks(size=480_000, rule=piece), Parallel(rules=(Windows(size=17), Scale(per=4)))))


@given(st.integers(0, 2_000_000), st.integers(0, 500_000))
def test_more_audio_never_takes_fewer_positions(length, more):
    assert nested().count(length) <= nested().count(length + more)


def test_a_rule_is_read_back_from_json():
    rules = TypeAdapter(LengthRule)
    assert rules.validate_json(rules.dump_json(nested())) == nested()
    with pytest.raises(ValidationError, match="op"):
        rules.validate_python({"op": "stretch", "by": 2})


def test_bad_lengths_and_sizes_are_refused():
    with pytest.raises(ValueError, match="cannot be negative, got -1"):
        nested().count(-1)
    with pytest.raises(ValidationError, match="greater than 0"):
        Windows(size=0)
