"""Blending moves a clip's mean towards another clip's, and nothing else."""

from __future__ import annotations

import pytest
import torch

from lalm.model.build import build_model
from lalm.model.contrastive import mean_rows
from lalm.model.mixing import blend_clips
from lalm.recipe.load import load_recipe
from lalm.training.stages import enter_stage


@pytest.fixture
def clips():
    torch.manual_seed(0)
    positions, lengths = torch.randn(4, 6, 8), torch.tensor([6, 3, 1, 5])
    return positions * (torch.arange(6) < lengths[:, None])[..., None], lengths


def test_a_clip_is_shifted_as_a_whole_towards_another(clips):
    positions, lengths = clips
    before = mean_rows(positions, lengths)
    torch.manual_seed(1)
    blended = blend_clips(positions, lengths, 0.5)
    after = mean_rows(blended, lengths)
    torch.manual_seed(1)
    partners = torch.randperm(4)
    assert (partners != torch.arange(4)).any()
    shares = 0.5 * torch.rand(4, 1)
    torch.testing.assert_close(after, before + shares * (before[partners] - before))
    for clip, length in enumerate(lengths):
        shift = blended[clip, :length] - positions[clip, :length]
        torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-6)
        assert not blended[clip, length:].any()


def test_what_stands_for_a_clip_moves_towards_what_stands_for_the_other():
    torch.manual_seed(0)
    positions, lengths = torch.randn(4, 7, 8), torch.tensor([7, 4, 2, 6])
    positions = positions * (torch.arange(7) < lengths[:, None])[..., None]
    torch.manual_seed(1)
    blended = blend_clips(positions, lengths, 0.5, num_summaries=1)
    torch.manual_seed(1)
    without = blend_clips(positions * (torch.arange(7) < lengths[:, None] - 1)[..., None], lengths - 1, 0.5)
    torch.manual_seed(1)
    partners, shares = torch.randperm(4), 0.5 * torch.rand(4, 1)
    own = positions[torch.arange(4), lengths - 1]
    torch.testing.assert_close(blended[torch.arange(4), lengths - 1], own + shares * (own[partners] - own))
    for clip, length in enumerate(lengths):
        torch.testing.assert_close(blended[clip, : length - 1], without[clip, : length - 1])
        assert not blended[clip, length:].any()


def test_gradients_stay_with_the_clip(clips):
    positions, lengths = clips
    positions.requires_grad_(True)
    torch.manual_seed(1)
    blend_clips(positions, lengths, 0.9)[0].sum().backward()
    assert positions.grad[0].any()
    assert not positions.grad[1:].any()


def test_one_clip_alone_stays_as_it_is(clips):
    positions, lengths = clips
    torch.testing.assert_close(blend_clips(positions[:1], lengths[:1], 1.0), positions[:1])


def test_only_a_training_model_of_such_a_stage_blends():
    recipe = load_recipe("tiny", ["stages.0.mix_positions=0.8"])
    model, _ = build_model(recipe)
    states, steps = torch.randn(3, 40, model.audio_tower.width), torch.tensor([40, 24, 33])

    def projected(*, training):
        model.train(training)
        torch.manual_seed(3)
        return model.project_audio(None, None, None, states, steps)[0]

    plain = projected(training=True)
    enter_stage(model, recipe.stages[0])
    assert not torch.allclose(projected(training=True), plain)
    torch.testing.assert_close(projected(training=False), plain)
    enter_stage(model, recipe.stages[1])
    torch.testing.assert_close(projected(training=True), plain)
