"""Every encoder of the table: shapes, lengths, padded = unpadded, batch = one by one, dtype kept, saved = loaded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from lalm.encoders import ENCODERS, build_encoder, load_encoder
from lalm.encoders.base import AudioEncoder
from lalm.recipe.encoders import EncoderOptions

TINY_WHISPER = {
    "random_sizes": {
        "d_model": 32,
        "encoder_layers": 3,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "max_source_positions": 75,
    }
}
"""Chunks of 1.5 s, so that long clips are short."""
TINY_BEATS = {
    "random_sizes": {
        "encoder_layers": 2,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 4,
        "embed_dim": 16,
        "conv_pos": 8,
        "conv_pos_groups": 4,
    },
    "chunk_seconds": 1.5,
}
TINY_POOLED = {"random_sizes": {"max_source_positions": 75}}
SMALL = {
    "whisper": [
        {**TINY_WHISPER, "padding": "full"},
        {**TINY_WHISPER, "padding": "real"},
        {**TINY_WHISPER, "padding": "margin", "margin_seconds": 0.3},
        {**TINY_WHISPER, "padding": "real", "layers": "weighted"},
        {**TINY_WHISPER, "padding": "full", "layers": (0, 2)},
    ],
    "beats": [
        {**TINY_BEATS, "padding": "real"},
        {**TINY_BEATS, "padding": "full"},
        {**TINY_BEATS, "layers": "weighted"},
        {**TINY_BEATS, "layers": (1,)},
    ],
    "clap": [{}, {"pooling": "mean", "fill": "silence"}],
    "ast": [
        {"random_sizes": {"max_length": 150}},
        {"random_sizes": {"max_length": 150}, "padding": "real", "frequency": "keep", "layers": "weighted"},
        {"random_sizes": {"max_length": 150}, "layers": (0, 1)},
    ],
    "cav_mae": [
        {"random_sizes": {"max_length": 160}},
        {"random_sizes": {"max_length": 160}, "padding": "real", "layers": "weighted"},
        {"random_sizes": {"max_length": 160}, "keep_filler": True, "layers": (0, 1), "layers_as": "separate"},
    ],
    "wav2vec2": [
        {"chunk_seconds": 1.5, "random_sizes": {"feat_extract_norm": "group"}},
        {"chunk_seconds": 1.5, "random_sizes": {"feat_extract_norm": "layer", "do_stable_layer_norm": True}},
    ],
    "hubert": [{"chunk_seconds": 1.5, "layers": "weighted"}],
    "wavlm": [{"chunk_seconds": 1.5}, {"chunk_seconds": 1.5, "layers": (0, 1), "normalised": False}],
    "mert": [{"chunk_seconds": 1.5, "layers": (0, 1)}],
    "w2v_bert": [{"chunk_seconds": 1.5}, {"chunk_seconds": 1.5, "layers": "weighted"}],
    "encodec": [
        {"chunk_seconds": 1.5},
        {
            "random_sizes": {
                "audio_channels": 2,
                "normalize": True,
                "chunk_length_s": 1.5,
                "overlap": 0.01,
                "norm_type": "time_group_norm",
                "use_causal_conv": False,
                "sampling_rate": 48000,
            }
        },
    ],
    "dac": [{"chunk_seconds": 1.5}, {"chunk_seconds": 1.5, "random_sizes": {"downsampling_ratios": (2, 4, 8, 8)}}],
    "mimi": [{"chunk_seconds": 1.5}],
    "qwen2_audio": [TINY_POOLED, {**TINY_POOLED, "layers": "weighted"}],
    "audio_flamingo3": [TINY_POOLED, {**TINY_POOLED, "layers": (0, 1)}],
    "voxtral": [
        TINY_POOLED,
        {**TINY_POOLED, "silence": "dropped"},
        {**TINY_POOLED, "layers": "weighted"},
    ],
    "granite_speech": [{"chunk_seconds": 1.5}, {"chunk_seconds": 1.5, "layers": "weighted"}],
}
CASES = [
    pytest.param(name, options, id=f"{name}-{i}") for name, cases in SMALL.items() for i, options in enumerate(cases)
]
SECONDS = (0.31, 1.5, 0.8, 0.32)
ROUNDING = {"voxtral": 5e-6}
"""Float32 sums in another order, for states of magnitude one; 2e-6 for all that are not named. Voxtral: 2.1e-6 seen."""


def make(name: str, options: dict) -> AudioEncoder:
    torch.manual_seed(0)
    section = TypeAdapter(EncoderOptions).validate_python({"name": name, "base": "random", **options})
    encoder = load_encoder(section)
    for parameter in encoder.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return encoder


def clip(encoder: AudioEncoder, num_samples: int) -> np.ndarray:
    return np.random.default_rng(num_samples).normal(0, 0.1, num_samples).astype(np.float32)


def batch_of(
    encoder: AudioEncoder, clips: list[np.ndarray], extra_frames: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chunks of all clips as one batch, with loud noise behind each."""
    chunks = [chunk for wave in clips for chunk in encoder.front_end.chunks(wave)]
    longest = max(chunk.features.shape[1] for chunk in chunks) + extra_frames
    generator = torch.Generator().manual_seed(longest)
    features = 10 * torch.randn(len(chunks), chunks[0].features.shape[0], longest, generator=generator)
    for row, chunk in zip(features, chunks, strict=True):
        row[:, : chunk.features.shape[1]] = torch.from_numpy(chunk.features)
    return features, torch.tensor([chunk.num_frames for chunk in chunks])


def test_every_encoder_is_tested():
    assert set(SMALL) == set(ENCODERS)


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_steps_follow_the_length_rule(name, options):
    encoder = make(name, options)
    rate = encoder.front_end.sample_rate_hz
    lengths = [1, 159, 160, 161, 320, 321, 399, 400, 401, 3199, 3201, 8000, *(rate * n // 4 + 7 for n in range(1, 16))]
    for num_samples in (length for length in lengths if encoder.length_rule.count(length)):
        output = encoder(*batch_of(encoder, [clip(encoder, num_samples)]))
        assert output.states.shape[1:] == (int(output.num_steps.max()), encoder.width)
        assert int(output.num_steps.sum()) == encoder.length_rule.count(num_samples), num_samples
        assert all(
            torch.isfinite(states[:steps]).all() for states, steps in zip(output.states, output.num_steps, strict=True)
        )


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_noise_in_the_padding_changes_no_bit(name, options):
    encoder = make(name, options)
    wave = [clip(encoder, 5001)]
    alone = encoder(*batch_of(encoder, wave))
    padded = encoder(*batch_of(encoder, wave, extra_frames=37))
    assert torch.equal(padded.num_steps, alone.num_steps)
    assert torch.equal(padded.states, alone.states)


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_batch_equals_one_by_one(name, options):
    encoder = make(name, options)
    clips = [clip(encoder, round(seconds * encoder.front_end.sample_rate_hz)) for seconds in SECONDS]
    together = encoder(*batch_of(encoder, clips))
    for index, wave in enumerate(clips):
        alone = encoder(*batch_of(encoder, [wave]))
        steps = int(alone.num_steps[0])
        assert int(together.num_steps[index]) == steps
        torch.testing.assert_close(
            together.states[index, :steps], alone.states[0], atol=ROUNDING.get(name, 2e-6), rtol=0
        )
        assert not together.states[index, steps:].any(), "states behind the real steps are zeros"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_chunks_of_a_long_clip_are_encoded_one_by_one(name, options):
    encoder = make(name, options)
    size = encoder.front_end.chunk_samples
    wave = clip(encoder, 2 * size + 4321)
    features, num_frames = batch_of(encoder, [wave])
    with torch.no_grad():
        whole = encoder(features, num_frames)
        if name == "voxtral":  # whose spectrogram is of the whole clip
            last = encoder(features[2:], num_frames[2:])
        else:
            last = encoder(*batch_of(encoder, [wave[2 * size :]]))
    assert len(whole.states) == 3
    torch.testing.assert_close(whole.states[2, : last.states.shape[1]], last.states[0], atol=2e-6, rtol=0)


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_dtype_is_kept(name, options):
    encoder = make(name, options)
    features, num_frames = batch_of(encoder, [clip(encoder, 8000)])
    exact = encoder(features, num_frames).states
    # oneDNN 3 with AMX, torch 2.13: in bfloat16 a convolution in groups of 5 to 15 channels each comes out as noise.
    # Published encoders have 48 and more; these small ones have 8.
    with torch.backends.mkldnn.flags(enabled=not torch.cpu._is_amx_tile_supported()):
        half = encoder.to(torch.bfloat16)(features, num_frames).states
    assert (exact.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(half.float(), exact, atol=0.2, rtol=0.1)


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_saved_equals_loaded(name, options):
    encoder = make(name, options)
    section = TypeAdapter(EncoderOptions).validate_python({"name": name, "base": "nowhere/to/be/found", **options})
    rebuilt = build_encoder(section, json.loads(json.dumps(encoder.config_dict()))).eval()
    rebuilt.load_state_dict(encoder.state_dict(), strict=True)
    inputs = batch_of(encoder, [clip(encoder, 8000)])
    assert torch.equal(rebuilt(*inputs).states, encoder(*inputs).states)
    assert (rebuilt.width, rebuilt.front_end, rebuilt.length_rule, rebuilt.steps_per_second) == (
        encoder.width,
        encoder.front_end,
        encoder.length_rule,
        encoder.steps_per_second,
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_loaded_encoders_are_frozen_and_can_be_trained(name, options):
    encoder = make(name, options)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.requires_grad_(True)
    output = encoder(*batch_of(encoder, [clip(encoder, 8000), clip(encoder, 12000)]))
    output.states.square().sum().backward()
    without = [key for key, parameter in encoder.named_parameters() if parameter.grad is None]
    assert not without, f"no gradient reaches {without}"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_shapes_are_known_without_weights(name, options):
    section = TypeAdapter(EncoderOptions).validate_python({"name": name, "base": "random", **options})
    with torch.device("meta"):
        empty = build_encoder(section)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert empty.width == make(name, options).width
