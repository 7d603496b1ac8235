"""Layers of one encoder side by side on the width of its states, for a projector that reads several."""

from __future__ import annotations

import json

import pytest
import torch

from lalm.encoders import build_encoder, load_encoder
from lalm.encoders.base import LayerMix
from lalm.errors import ModelError, RecipeError
from lalm.model.build import build_model
from lalm.recipe.load import load_recipe

WITH_LAYERS = ("whisper", "beats", "ast", "cav_mae", "wav2vec2", "hubert", "wavlm", "mert", "w2v_bert", "qwen2_audio",
               "audio_flamingo3", "voxtral", "granite_speech")  # fmt: skip
SMALL = {
    "whisper": {"max_source_positions": 75},
    "qwen2_audio": {"max_source_positions": 75},
    "audio_flamingo3": {"max_source_positions": 75},
    "voxtral": {"max_source_positions": 75},
    "ast": {"max_length": 150},
    "cav_mae": {"max_length": 160},
    "beats": {
        "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 4,
        "embed_dim": 16, "conv_pos": 8, "conv_pos_groups": 4,
    },
}  # fmt: skip


def section_of(name, **options):
    encoder = {"name": name, "base": "random", "dtype": "float32", "random_sizes": SMALL.get(name, {}), **options}
    return load_recipe("tiny", [f"encoders={json.dumps([encoder])}"]).encoders[0]


@pytest.mark.parametrize("name", WITH_LAYERS)
@torch.no_grad()
def test_each_layer_stands_in_its_place(name):
    section = section_of(name, layers=[0, 1], layers_as="separate")
    torch.manual_seed(0)
    encoder = load_encoder(section)
    assert encoder.num_layer_outputs == 2
    assert encoder.width == 2 * encoder.layer_width
    (piece,) = encoder.front_end.chunks(torch.randn(encoder.front_end.sample_rate_hz).numpy() * 0.1)
    features, frames = torch.as_tensor(piece.features)[None], torch.tensor([piece.num_frames])
    states = encoder(features, frames).states
    for number in (0, 1):
        alone = build_encoder(section_of(name, layers=[number]), encoder.config_dict()).eval()
        shared = encoder.model.state_dict()
        alone.model.load_state_dict({name: shared[name] for name in alone.model.state_dict()})
        expected = alone(features, frames).states
        torch.testing.assert_close(states[..., number * alone.width : (number + 1) * alone.width], expected)


def test_the_order_is_that_of_the_list():
    outputs = [torch.full((1, 1, 2), float(number)) for number in range(3)]
    assert LayerMix((2, 0), 3, "separate")(outputs).tolist() == [[[2, 2, 0, 0]]]
    assert LayerMix((2, 0), 3)(outputs).tolist() == [[[1, 1]]]


@pytest.mark.parametrize("layers", ["last", "weighted", [1]])
def test_one_layer_cannot_be_separate(layers):
    with pytest.raises(RecipeError, match="layers_as: separate needs `layers` to be a list of at least two"):
        section_of("whisper", layers=layers, layers_as="separate")


def test_a_layer_that_the_encoder_lacks_is_refused():
    with pytest.raises(ModelError, match=r"layers \(0, 5\): the encoder has layers 0 to 1"):
        load_encoder(section_of("whisper", layers=[0, 5], layers_as="separate"))


def test_the_aggregator_reads_them_from_a_real_encoder():
    encoder = {
        "name": "whisper", "base": "random", "padding": "real", "layers": [0, 1, 2], "layers_as": "separate",
        "random_sizes": {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32},
    }  # fmt: skip
    projector = "{name: aggregator, num_taps: 2, queries: 2, num_layers: 1, hidden_size: 16, num_heads: 2}"
    model, processor = build_model(load_recipe("tiny", [f"encoders={json.dumps([encoder])}", f"projector={projector}"]))
    wave = torch.randn(16000).numpy() * 0.1
    vectors = model.get_audio_features(**processor.audio_inputs([wave]))
    assert len(vectors) == processor.num_positions(16000) == 2 + 50
