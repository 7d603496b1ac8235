"""A composed scene sounds where its truth says, as long and as loud as it says, and the seed decides all of it."""

from itertools import pairwise

import numpy as np
import pytest
from invented_corpora import invented_clips

from data_builders.clips import SAMPLE_RATE_HZ, seeded
from data_builders.scenes import LONGEST_SCENE_SECONDS, compose, plan_scene
from data_builders.selection import event_bank
from data_builders.splits import assign_splits


@pytest.fixture(scope="module")
def bank():
    clips = invented_clips()
    return event_bank(clips, assign_splits(clips, 0), "train")


def made(bank, number):
    plan = plan_scene(bank, seeded("scene", number))
    return plan, *compose(plan, [clip.render() for clip in plan.clips], seeded("compose", number))


@pytest.mark.parametrize("number", range(12))
def test_the_truth_is_what_is_in_the_waveform(bank, number):
    plan, wave, scene = made(bank, number)
    assert 2 <= len(scene.events) <= 4
    assert scene.labels == tuple("speech" if clip.kind == "speech" else clip.label for clip in plan.clips)
    assert len(wave) / SAMPLE_RATE_HZ <= LONGEST_SCENE_SECONDS
    sounding = np.zeros(len(wave), bool)
    for event in scene.events:
        start = round(event.onset * SAMPLE_RATE_HZ)
        end = start + round(event.duration * SAMPLE_RATE_HZ)
        part = wave[start:end]
        assert 20 * np.log10(np.sqrt(np.mean(part**2))) == pytest.approx(event.level_db, abs=0.3)
        assert 20 * np.log10(np.abs(part).max()) == pytest.approx(event.peak_db, abs=1.0)
        assert not sounding[start:end].any()
        sounding[start:end] = True
    assert np.abs(wave[~sounding]).max() < 0.01


def test_the_seed_decides_everything(bank):
    first, second, other = made(bank, 1), made(bank, 1), made(bank, 2)
    assert first[2] == second[2]
    assert np.array_equal(first[1], second[1])
    assert first[2] != other[2]


def test_no_scene_clips(bank):
    assert max(np.abs(made(bank, number)[1]).max() for number in range(20)) <= 1.0


def test_some_scenes_repeat_a_sound_and_levels_differ_in_each(bank):
    plans = [plan_scene(bank, seeded("plan", number)) for number in range(200)]
    repeats = [len({clip.label or "speech" for clip in plan.clips}) < len(plan.clips) for plan in plans]
    assert 20 < sum(repeats) < 100
    assert all(len(set(plan.levels_db)) > 1 for plan in plans)


def test_a_repeated_sound_never_follows_itself(bank):
    for number in range(200):
        labels = [clip.label or "speech" for clip in plan_scene(bank, seeded("plan", number)).clips]
        assert all(first != second for first, second in pairwise(labels))


def test_a_silent_clip_is_refused(bank):
    plan = plan_scene(bank, seeded("scene", 0))
    waves = [np.zeros(8_000, np.float32)] + [clip.render() for clip in plan.clips[1:]]
    with pytest.raises(ValueError, match="is silent"):
        compose(plan, waves, seeded(0))


def test_a_small_bank_is_refused(bank):
    with pytest.raises(ValueError, match="at least 4 labels"):
        plan_scene(dict(list(bank.items())[:3]), seeded(0))
