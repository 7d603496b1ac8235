"""Whisper's encoder beside transformers' own, at full and at real length; what its options do."""

from __future__ import annotations

import pytest
import torch
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

from lalm.encoders import build_encoder, load_encoder
from lalm.encoders.base import LayerMix, groups_of_equal_length
from lalm.errors import ModelError
from lalm.recipe.encoders import WhisperSection

SIZES = {"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}


def make(**options):
    torch.manual_seed(0)
    return build_encoder(
        WhisperSection(base="random", random_sizes={**SIZES, **options.pop("sizes", {})}, **options)
    ).eval()


def features(num: int, frames: int) -> torch.Tensor:
    return torch.randn(num, 80, frames, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parity
@torch.no_grad()
def test_full_padding_equals_transformers_forward():
    encoder = make(padding="full")
    assert isinstance(encoder.model, Theirs)
    mel = features(2, 3000)
    expected = encoder.model(mel).last_hidden_state
    output = encoder(mel, torch.tensor([3000, 41]))
    torch.testing.assert_close(output.states[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.states[1, :21], expected[1, :21], atol=1e-5, rtol=0)
    assert output.num_steps.tolist() == [1500, 21]
    assert not output.states[1, 21:].any()


@pytest.mark.parity
@torch.no_grad()
def test_real_length_equals_a_transformers_encoder_of_that_length():
    encoder = make(padding="real")
    short = make(padding="full", sizes={"max_source_positions": 60})
    state = encoder.model.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:60]
    short.model.load_state_dict(state)
    mel = features(1, 120)
    expected = short.model(mel).last_hidden_state
    torch.testing.assert_close(encoder(mel, torch.tensor([120])).states, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_layers_are_counted_from_the_first_block():
    mel, frames = features(1, 100), torch.tensor([100])
    outputs = [make(padding="real", layers=(layer,))(mel, frames).states for layer in range(3)]
    assert torch.equal(outputs[2], make(padding="real", layers="last")(mel, frames).states)
    mean = torch.stack([outputs[0], outputs[2]]).mean(dim=0)
    torch.testing.assert_close(make(padding="real", layers=(0, 2))(mel, frames).states, mean)
    weighted = make(padding="real", layers="weighted")
    torch.testing.assert_close(weighted(mel, frames).states, torch.stack(outputs).mean(dim=0))
    weighted.mix.weights.copy_(torch.tensor([-50.0, 50.0, -50.0]))
    torch.testing.assert_close(weighted(mel, frames).states, outputs[1])


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match=r"layers \(1, 3\): the encoder has layers 0 to 2"):
        make(layers=(1, 3))
    with pytest.raises(ValueError, match="layers 0 to 1"):
        LayerMix((-1,), 2)


def test_the_encoder_says_its_rate_and_rules():
    encoder = make(padding="real")
    assert encoder.steps_per_second == 50
    assert encoder.front_end.chunk_seconds == 30
    assert [encoder.length_rule.count(n) for n in (0, 1, 320, 321, 480_000, 480_001)] == [0, 1, 1, 2, 1500, 1501]


def test_too_few_frames_for_a_clip_and_its_padding_are_refused():
    with pytest.raises(ValueError, match="features hold 40 frames, the clip and its padding need 3000"):
        make(padding="full")(features(1, 40), torch.tensor([40]))


@torch.no_grad()
def test_a_piece_without_frames_has_no_steps():
    output = make(padding="real")(features(2, 40), torch.tensor([0, 40]))
    assert output.num_steps.tolist() == [0, 20]
    assert not output.states[0].any()


def test_an_unknown_base_is_refused():
    with pytest.raises(ModelError, match="no packaged model 'whisper-huge'"):
        load_encoder(WhisperSection(base="package:whisper-huge"))
    with pytest.raises(ModelError, match="lalm models fetch whisper-base"):
        load_encoder(WhisperSection(base="package:whisper-base"))


def test_groups_of_equal_length():
    assert groups_of_equal_length([4, 0, 6, 4]) == {4: [0, 3], 6: [2]}
