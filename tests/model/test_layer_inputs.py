"""A projector that reads several layers: they come side by side on the width of the states, and are told apart."""

from __future__ import annotations

import pytest
import torch

from lalm.model.audio_tower import AudioTower
from lalm.model.build import build_model
from lalm.recipe.load import load_recipe

AGGREGATOR = (
    "projector={name: aggregator, num_taps: 2, queries: 2, num_layers: 1, hidden_size: 16, num_heads: 2, "
    "intermediate_size: 32, dropout: 0.0, pool_steps: 2}"
)


@pytest.fixture
def three_layers(monkeypatch):
    """A tower whose encoder hands three layers of width 16 over, side by side."""
    monkeypatch.setattr(AudioTower, "num_layer_outputs", 3)
    monkeypatch.setattr(AudioTower, "width", 48)


def test_the_layers_reach_the_projector_in_their_order(three_layers):
    model, _ = build_model(load_recipe("tiny", [AGGREGATOR]))
    states = torch.randn(2, 12, 48)
    steps = torch.tensor([12, 7])
    positions, counts = model.project_audio(None, None, None, states, steps)
    assert counts.tolist() == [2 + 6, 2 + 4]
    by_layer = torch.stack(states.split(16, dim=-1), dim=1)
    torch.testing.assert_close(positions, model.multi_modal_projector(by_layer, steps)[0])
    for layer in range(3):
        changed = by_layer.clone()
        changed[:, layer] += 1.0
        assert not torch.allclose(positions, model.multi_modal_projector(changed, steps)[0], atol=1e-6)


def test_an_encoder_that_gives_one_layer_is_refused():
    with pytest.raises(ValueError, match="reads 3 layers of the encoder, each as a state of its own, but 1 arrive"):
        build_model(load_recipe("tiny", [AGGREGATOR]))


def test_several_layers_for_a_projector_of_one_are_refused(three_layers):
    with pytest.raises(ValueError, match="reads 1 layers of the encoder, each as a state of its own, but 3 arrive"):
        build_model(load_recipe("tiny"))
