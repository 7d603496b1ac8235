"""Random changes of clips: fixed by seed, step and clip, and never another length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_data import FakeProcessor, make_recipe

from lalm.data.augment import augment_waveform, faster, generator, mask_features, power
from lalm.data.dataset import build_stage_data
from lalm.data.examples import open_clips
from lalm.recipe.schema import AugmentSection

RATE = 16000


@pytest.fixture
def wave() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(RATE)
    return (0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) + 0.01 * noise).astype(np.float32)


def changed(wave, step=0, other=None, **options):
    return augment_waveform(wave, AugmentSection(**options), generator(1, step, "clip"), other)


@pytest.mark.parametrize("options", [{"gain_db": 6}, {"noise_db": 5}, {"speed": 1.4}])
def test_the_same_step_hears_the_same_and_another_step_another(wave, options):
    first = changed(wave, **options)
    assert first.shape == wave.shape
    assert first.dtype == np.float32
    assert np.array_equal(first, changed(wave, **options))
    assert not np.array_equal(first, changed(wave, step=1, **options))
    assert not np.array_equal(first, wave)


def test_nothing_asked_is_nothing_changed(wave):
    assert np.array_equal(changed(wave), wave)


def test_noise_has_the_ratio_that_was_asked_for(wave):
    ratios = []
    for step in range(30):
        noise = changed(wave, step=step, noise_db=12.0) - wave
        ratios.append(10 * np.log10(power(wave) / power(noise)))
    assert min(ratios) >= 11.5
    assert max(ratios) <= 32.5
    assert max(ratios) - min(ratios) > 10


def test_gain_stays_within_its_bounds(wave):
    gains = [
        20 * np.log10(np.abs(changed(wave, step=step, gain_db=4.0)).max() / np.abs(wave).max()) for step in range(30)
    ]
    assert -4.001 <= min(gains) < -2 < 2 < max(gains) <= 4.001


def test_faster_raises_the_pitch_and_leaves_silence(wave):
    played = faster(wave, 1.25)
    assert len(played) == len(wave)
    assert not played[RATE * 4 // 5 + 1 :].any()
    spectrum = np.abs(np.fft.rfft(played[: RATE * 4 // 5]))
    assert np.fft.rfftfreq(RATE * 4 // 5, 1 / RATE)[spectrum.argmax()] == pytest.approx(550, abs=3)


def test_another_clip_is_mixed_in_10_db_quieter(wave):
    guest = (0.4 * np.random.default_rng(2).standard_normal(2 * RATE)).astype(np.float32)
    mixed = changed(wave, mix_probability=1.0, other=lambda rng: guest)
    assert 10 * np.log10(power(wave) / power(mixed - wave)) == pytest.approx(10, abs=0.2)
    assert np.array_equal(changed(wave, mix_probability=1.0, other=lambda rng: None), wave)


def test_masks_stay_inside_the_clip_and_their_sizes():
    features = torch.randn(2, 20, 50, generator=torch.Generator().manual_seed(0))
    inputs = {"input_features": [features], "feature_lengths": [torch.tensor([50, 30])], "chunk_counts": torch.ones(2)}
    options = AugmentSection(mask_frames=10, mask_bins=5)
    for step in range(20):
        (masked,) = mask_features(inputs, options, generator(0, step, "x"))["input_features"]
        differs = masked != features
        assert not differs[1, :, 30:].any()
        for chunk, length in zip(differs, (50, 30), strict=True):
            assert chunk[:, :length].all(dim=0).sum() <= 10
            assert chunk[:, :length].all(dim=1).sum() <= 5
    assert differs.any()
    assert mask_features(inputs, AugmentSection(), generator(0, 0, "x")) is inputs


def test_a_stage_hears_changed_clips_by_step_whatever_the_number_of_processes(corpus):
    def stage(world_size, **augment):
        changes = {"augment": augment} if augment else {}
        recipe = make_recipe(corpus, data={"cache_states": False}, stage={**changes, "batch_records": 2})
        return build_stage_data(recipe, 0, FakeProcessor(), open_clips(recipe, RATE), world_size=world_size)

    def heard(data) -> dict:
        """Features of each (step, clip)."""
        found = {}
        per_step = data.plan.gradient_accumulation_steps * data.plan.world_size
        for item in range(len(data.dataset)):
            batch = data.dataset.micro_batch(item)
            names = list(dict.fromkeys(name for example in batch.examples for name in example.audio_hashes))
            lengths = batch.inputs["feature_lengths"][0]
            rows = batch.inputs["input_features"][0]
            for row, length in zip(rows, lengths.tolist(), strict=True):
                key = (item // per_step, length)
                found.setdefault(key, row[:, :length])
            assert len(rows) == len(names)
        return found

    one, two, plain = heard(stage(1, noise_db=3, gain_db=3)), heard(stage(2, noise_db=3, gain_db=3)), heard(stage(1))
    assert one.keys() == two.keys() == plain.keys()
    for key, features in one.items():
        assert torch.equal(features, two[key])
        assert not torch.equal(features, plain[key])
