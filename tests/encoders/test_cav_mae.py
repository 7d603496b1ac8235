"""CAV-MAE's audio branch: LTU's filterbank, and what becomes of the filler behind a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from lalm.audio.spectra import kaldi_filterbank
from lalm.encoders import load_encoder
from lalm.recipe.encoders import EncoderOptions

RATE = 16000
WAVE = np.random.default_rng(0).normal(0.01, 0.1, RATE * 3 // 2).astype(np.float32)


def make(**options):
    torch.manual_seed(0)
    section = {"name": "cav_mae", "base": "random", **options}
    return load_encoder(TypeAdapter(EncoderOptions).validate_python(section))


def encode(encoder, wave):
    (piece,) = encoder.front_end.chunks(wave)
    output = encoder(torch.from_numpy(piece.features)[None].float(), torch.tensor([piece.num_frames]))
    return output.states[0, : int(output.num_steps[0])]


def test_the_filterbank_is_normalised_and_filled_as_ltu_does():
    """(frames + 5.081) / 4.4849, zeros behind the clip before that. It also takes the mean off a clip, as every frame
    does of itself."""
    (piece,) = make().front_end.chunks(WAVE)
    frames = kaldi_filterbank(WAVE - WAVE.mean(), 128, window="hann", scale=1.0)
    assert piece.features.shape == (128, 1024)
    assert piece.num_frames == frames.shape[1] == 148
    np.testing.assert_allclose(piece.features[:, :148], (frames + 5.081) / 4.4849, atol=2e-4)
    np.testing.assert_allclose(piece.features[:, 148:], 5.081 / 4.4849, rtol=1e-6)


@torch.no_grad()
def test_filler_is_heard_and_its_states_are_kept_where_asked():
    trimmed, kept, alone = make(), make(keep_filler=True), make(padding="real")
    # Of 1024 frames the last two do not lie wholly inside 10.24 s.
    assert [encoder.steps_per_second for encoder in (trimmed, kept)] == [63 / 10.24, 64 / 10.24]
    assert {encoder.step_seconds for encoder in (trimmed, kept, alone)} == {0.16}
    assert [len(encode(encoder, WAVE)) for encoder in (trimmed, kept, alone)] == [9, 64, 9]
    torch.testing.assert_close(encode(kept, WAVE)[:9], encode(trimmed, WAVE))
    assert not torch.allclose(encode(alone, WAVE), encode(trimmed, WAVE), atol=1e-3)
    for num_samples in (400, RATE, round(10.24 * RATE)):
        assert kept.length_rule.count(num_samples) == 64
    assert kept.length_rule.count(399) == 0
    assert kept.length_rule.count(round(10.24 * RATE) + RATE) == 128


@torch.no_grad()
def test_a_clip_alone_takes_the_first_positions():
    encoder = make(padding="real")
    before = encode(encoder, WAVE)
    encoder.model.positions.data.unflatten(1, (8, -1))[:, :, 9:] += 5
    assert torch.equal(encode(encoder, WAVE), before)
    encoder.model.positions.data.unflatten(1, (8, -1))[:, :, 8] += 5
    assert not torch.equal(encode(encoder, WAVE), before)


def test_filler_to_keep_needs_filling():
    with pytest.raises(ValidationError, match="keep_filler needs padding: full; with padding: real nothing is filled"):
        make(padding="real", keep_filler=True)
