"""The schedule: one global step, a warm-up that never trains at 0, an end where the recipe says."""

from __future__ import annotations

import math

import pytest

from lalm.training.schedule import share_of_peak


def test_warm_up_rises_in_equal_parts(make_stage):
    stage = make_stage(warmup_steps=3, schedule="constant")
    assert [share_of_peak(step, 9, stage) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_falls_to_its_floor(make_stage, schedule, floor):
    stage = make_stage(warmup_steps=2, schedule=schedule, min_lr_share=floor)
    shares = [share_of_peak(step, 22, stage) for step in range(2, 23)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[10] == pytest.approx(floor + (1 - floor) * 0.5)
    assert shares[-1] == pytest.approx(floor)


def test_cosine_equals_its_formula(make_stage):
    stage = make_stage(warmup_steps=0)
    assert share_of_peak(3, 12, stage) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_warm_up_longer_than_the_stage(make_stage):
    stage = make_stage(warmup_steps=50)
    assert all(0 < share_of_peak(step, 10, stage) < 0.25 for step in range(10))
