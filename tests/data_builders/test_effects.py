"""Scene effects: levels, tails, filters and sides measured on the waveform; the truth stays exact to the sample."""

from dataclasses import replace

import numpy as np
import pytest

from data_builders.clips import SAMPLE_RATE_HZ, Clip, seeded
from data_builders.effects import (
    COLOURS,
    Effects,
    EffectShares,
    coloured_noise,
    draw_effects,
    filtered,
    reverberated,
    to_side,
    with_background,
)
from data_builders.scenes import ScenePlan, compose

RATE = SAMPLE_RATE_HZ


def tone(frequency, seconds, level=0.2):
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def rms(wave):
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def clip(name):
    return Clip(name, None, 1.0, "invented", "CC0", name, "sound", label=name)


PLAN = ScenePlan((clip("a"), clip("b"), clip("c")), (-26.0, -22.0, -18.0), (0.2, 0.3, 0.3, 0.2))
WAVES = (tone(500, 1.2), tone(1000, 1.0), tone(2000, 1.1))


@pytest.mark.parametrize("colour", sorted(COLOURS))
@pytest.mark.parametrize("snr_db", [5.0, 20.0])
def test_the_background_lies_at_its_snr(colour, snr_db):
    wave = tone(500, 3)
    noisy = with_background(wave, rms(wave), colour, snr_db, seed=1)
    assert 20 * np.log10(rms(wave) / rms(noisy - wave)) == pytest.approx(snr_db, abs=0.1)
    power = np.abs(np.fft.rfft(coloured_noise(RATE * 4, colour, 1))) ** 2
    low, high = power[4 * 400 : 4 * 800].mean(), power[4 * 3200 : 4 * 6400].mean()
    assert 10 * np.log10(low / high) == pytest.approx(60 * np.log10(2) * COLOURS[colour], abs=1.5)


def test_reverberation_falls_by_its_time_and_keeps_level_and_length():
    wave = np.concatenate([tone(800, 0.3), np.zeros(RATE, np.float32)])
    wet = reverberated(wave, 0.5, seed=2)
    assert len(wet) == len(wave)
    assert rms(wet) == pytest.approx(rms(wave), rel=1e-3)
    early, late = wet[round(0.35 * RATE) : round(0.4 * RATE)], wet[round(0.6 * RATE) : round(0.65 * RATE)]
    assert 20 * np.log10(rms(early) / rms(late)) == pytest.approx(30, abs=6)


def test_filters_keep_their_side_of_the_cutoff():
    both = tone(300, 1) + tone(5000, 1)
    low, high = filtered(both, "low_pass", 2000), filtered(both, "high_pass", 2000)
    assert rms(low - tone(300, 1)) < 0.01
    assert rms(high - tone(5000, 1)) < 0.01


def test_a_side_is_louder_and_earlier():
    sides = to_side(tone(700, 0.5) + np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32), "right")
    assert sides.shape == (RATE // 2, 2)
    assert 20 * np.log10(rms(sides[:, 1]) / rms(sides[:, 0])) == pytest.approx(9, abs=0.3)
    lag = np.argmax(np.correlate(sides[:2000, 0], sides[:2000, 1], "full")) - 1999
    assert 6 <= lag <= 10


def test_overlapping_events_start_where_the_truth_says():
    effects = Effects(overlaps=(0.5, 0.0))
    wave, scene = compose(replace(PLAN, effects=effects), WAVES, seeded("overlap"))
    assert scene.overlaps
    first, second, third = scene.events
    assert second.onset < first.end <= second.end
    assert third.onset > second.end
    apart = compose(PLAN, WAVES, seeded("overlap"))[1]
    assert not apart.overlaps
    start = round(first.onset * RATE)
    alone = wave[start : round(second.onset * RATE)]
    spectrum = np.abs(np.fft.rfft(alone))
    assert np.argmax(spectrum) * RATE / len(alone) == pytest.approx(500, abs=5)
    later = wave[round((second.onset + 0.02) * RATE) : round(first.end * RATE) - 400]
    strongest = np.argsort(np.abs(np.fft.rfft(later)))[-8:] * RATE / len(later)
    assert any(abs(strongest - 500) < 20)
    assert any(abs(strongest - 1000) < 20)


def test_effects_stand_in_the_truth_and_nothing_clips():
    effects = Effects(background="pink", snr_db=6.0, reverb_seconds=0.4, filter="low_pass", cutoff_hz=3000)
    loud = replace(PLAN, levels_db=(-6.0, -6.0, -6.0), effects=effects)
    wave, scene = compose(loud, WAVES, seeded("effects"))
    assert scene.effects == {
        "background": "pink noise",
        "snr_db": 6.0,
        "reverb_seconds": 0.4,
        "filter": "low_pass",
        "cutoff_hz": 3000,
    }
    assert np.abs(wave).max() <= 0.981
    assert scene.to_json() == [dict(row) for row in scene.to_json()]


def test_a_stereo_scene_has_its_events_on_their_sides():
    effects = Effects(sides=("left", "right", "left"))
    wave, scene = compose(replace(PLAN, effects=effects), WAVES, seeded("sides"))
    assert wave.shape[1] == 2
    for event in scene.events:
        part = wave[round(event.onset * RATE) : round(event.end * RATE)]
        assert (rms(part[:, 0]) > rms(part[:, 1])) == (event.side == "left")
    assert [row["side"] for row in scene.to_json()] == ["left", "right", "left"]
    assert "side" not in compose(PLAN, WAVES, seeded("sides"))[1].to_json()[0]


def test_shares_are_met_and_no_share_draws_nothing():
    shares = EffectShares(overlap=0.5, background=0.4, reverb=0.2, filter=0.1)
    drawn = [draw_effects(shares, 3, seeded(number)) for number in range(600)]
    for share, has in (
        (0.4, [bool(effects.background) for effects in drawn]),
        (0.2, [bool(effects.reverb_seconds) for effects in drawn]),
        (0.1, [bool(effects.filter) for effects in drawn]),
    ):
        assert sum(has) / len(has) == pytest.approx(share, abs=0.06)
    assert all(shares.snr_db[0] <= effects.snr_db <= shares.snr_db[1] for effects in drawn if effects.background)
    assert draw_effects(EffectShares(), 3, seeded(1)) == Effects()
