"""Each front end beside transformers' own feature extractor."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
)

from lalm.audio.features import (
    AstFrontEnd,
    BatchedKaldiFrontEnd,
    ClapFrontEnd,
    KaldiFrontEnd,
    SeamlessFrontEnd,
    WaveformFrontEnd,
)


def noise(seconds: float, rate_hz: int = 16000) -> np.ndarray:
    """Noise with a loud tone, off zero."""
    count = round(seconds * rate_hz)
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(count) / rate_hz)
    return (np.random.default_rng(count).normal(0.01, 0.05, count) + tone).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("seconds", [0.03, 1.0, 10.235])
def test_ast_equals_transformers(seconds):
    wave = noise(seconds)
    theirs = ASTFeatureExtractor()(wave, sampling_rate=16000, return_tensors="np").input_values[0].T
    chunk = AstFrontEnd(padding="full").extract(wave)
    np.testing.assert_allclose(chunk.features, theirs, atol=1e-4)
    assert chunk.num_frames == AstFrontEnd().length_rule().count(len(wave))
    real = AstFrontEnd(padding="real").extract(wave).features
    np.testing.assert_array_equal(real, chunk.features[:, : chunk.num_frames])


@pytest.mark.parity
@pytest.mark.parametrize("seconds", [0.05, 1.0, 1.01, 3.337])
def test_seamless_equals_transformers(seconds):
    wave = noise(seconds)
    theirs = SeamlessM4TFeatureExtractor()(wave, sampling_rate=16000, return_tensors="np")
    chunk = SeamlessFrontEnd().extract(wave)
    heard = int(theirs.attention_mask.sum())
    assert chunk.num_frames == heard == SeamlessFrontEnd().length_rule().count(len(wave))
    np.testing.assert_allclose(chunk.features, theirs.input_features[0, :heard].T, atol=1e-4)


def test_a_piece_without_a_whole_stack_has_no_frames():
    chunk = SeamlessFrontEnd().extract(noise(0.03))
    assert (chunk.features.shape, chunk.num_frames) == ((160, 0), 0)


@pytest.mark.parity
@pytest.mark.parametrize("do_normalize", [True, False])
def test_waveform_equals_transformers(do_normalize):
    wave = noise(1.3)
    theirs = Wav2Vec2FeatureExtractor(do_normalize=do_normalize)(wave, sampling_rate=16000, return_tensors="np")
    chunk = WaveformFrontEnd(is_normalised=do_normalize).extract(wave)
    np.testing.assert_allclose(chunk.features[0], theirs.input_values[0], atol=1e-4)
    assert chunk.num_frames == len(wave)


@pytest.mark.parity
@pytest.mark.parametrize("truncation", ["fusion", "rand_trunc"])
@pytest.mark.parametrize("seconds", [0.4, 3.3, 10.0])
@pytest.mark.parametrize(("fill", "padding"), [("repeat", "repeatpad"), ("silence", "pad")])
def test_clap_equals_transformers(seconds, truncation, fill, padding):
    wave = noise(seconds, 48000)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation=truncation, padding=padding)
    theirs = extractor(wave, sampling_rate=48000, return_tensors="np").input_features[0, 0].T
    front_end = ClapFrontEnd(fill=fill, mel_scale="htk" if truncation == "fusion" else "slaney")
    chunk = front_end.extract(wave)
    assert chunk.features.shape == (64, front_end.chunk_frames) == (64, 1001)
    assert chunk.num_frames == -(-len(wave) // 480)
    loud = theirs > -90  # Digital silence is the floor, give or take the rounding of its transform.
    np.testing.assert_allclose(chunk.features[loud], theirs[loud], atol=1e-3)
    np.testing.assert_allclose(10 ** (chunk.features / 10), 10 ** (theirs / 10), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.0])
def test_a_batched_filterbank_counts_frames_behind_the_clip(seconds):
    front_end, alone = BatchedKaldiFrontEnd(chunk_seconds=1.0), KaldiFrontEnd(chunk_seconds=1.0)
    wave = noise(seconds)
    chunk, own = front_end.extract(wave), alone.extract(wave)
    assert chunk.features.shape[1] == 98
    runs = [frame for frame in range(98) if frame * (16000 // 98) < len(wave)]
    assert chunk.num_frames == len(runs) >= own.num_frames
    np.testing.assert_array_equal(chunk.features[:, : own.num_frames], own.features)
