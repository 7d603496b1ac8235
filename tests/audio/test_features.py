"""Front ends equal independent implementations, and their lengths follow their rules."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from lalm.audio.features import FrontEnd, KaldiFrontEnd, WhisperFrontEnd
from lalm.audio.spectra import kaldi_filterbank, whisper_log_mel


def wave(num_samples: int) -> np.ndarray:
    time = np.arange(num_samples) / 16000
    noise = np.random.default_rng(num_samples).standard_normal(num_samples)
    return (0.4 * np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.05 * noise).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_log_mel_equals_transformers(num_mel_bins):
    from transformers import WhisperFeatureExtractor

    theirs = WhisperFeatureExtractor(feature_size=num_mel_bins)
    signal = wave(40_000)
    expected = theirs(signal, sampling_rate=16000, return_tensors="np").input_features[0]
    ours = WhisperFrontEnd(num_mel_bins=num_mel_bins, padding="full").extract(signal)
    assert ours.features.shape == (num_mel_bins, 3000)
    assert ours.num_frames == 250
    np.testing.assert_allclose(ours.features, expected, atol=1e-4)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
def test_filterbank_equals_transformers_kaldi_recipe():
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    signal = wave(16_000)
    filters = mel_filter_bank(
        257, 128, 20.0, 8000.0, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    expected = spectrogram(
        signal * 2**15,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )
    np.testing.assert_allclose(kaldi_filterbank(signal, 128), expected, atol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 399, 400, 3999, 16000, 16001, 480000])
@pytest.mark.parametrize("padding", ["full", "real", "margin"])
def test_whisper_lengths(num_samples, padding):
    front_end = WhisperFrontEnd(padding=padding, margin_seconds=0.5)
    chunk = front_end.extract(wave(num_samples))
    assert chunk.num_frames == front_end.length_rule().count(num_samples) == -(-num_samples // 160)
    assert chunk.features.shape[1] % 20 == 0
    assert chunk.num_frames <= chunk.features.shape[1] <= 3000
    assert np.isfinite(chunk.features).all()


@pytest.mark.parametrize("num_samples", [1, 399, 400, 559, 560, 16000])
@pytest.mark.parametrize("padding", ["full", "real", "margin"])
def test_kaldi_lengths(num_samples, padding):
    front_end = KaldiFrontEnd(padding=padding, margin_seconds=0.1, chunk_seconds=2)
    chunk = front_end.extract(wave(num_samples))
    assert chunk.num_frames == front_end.length_rule().count(num_samples)
    shown = {"full": 32000, "real": num_samples, "margin": num_samples + 1600}[padding]
    assert chunk.features.shape[1] == front_end.length_rule().count(shown)


@pytest.mark.parametrize("padding", ["full", "margin"])
def test_kaldi_padding_never_changes_real_frames(padding):
    signal = wave(16_000)
    alone = KaldiFrontEnd(padding="real").extract(signal)
    padded = KaldiFrontEnd(padding=padding, margin_seconds=0.3, chunk_seconds=1.5).extract(signal)
    np.testing.assert_allclose(padded.features[:, : padded.num_frames], alone.features, atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 159, 201, 16_000, 31_900, 32_000])
def test_silence_behind_a_clip_needs_no_transform(num_samples):
    signal = wave(num_samples)
    written_out = whisper_log_mel(np.pad(signal, (0, 32_000 - num_samples)), 80, 200)
    np.testing.assert_allclose(whisper_log_mel(signal, 80, 200), written_out, atol=1e-6)


def test_silence_behind_a_clip_changes_only_its_last_frames():
    signal = wave(32_000)
    alone = whisper_log_mel(signal, 80, 200)
    padded = whisper_log_mel(signal, 80, 300)
    np.testing.assert_allclose(alone[:, :-2], padded[:, :198], atol=1e-5)


def test_a_silent_clip_gives_finite_frames():
    for front_end in (WhisperFrontEnd(), KaldiFrontEnd()):
        assert np.isfinite(front_end.extract(np.zeros(8000, np.float32)).features).all()


def test_an_empty_clip_has_no_chunks():
    assert WhisperFrontEnd().chunks(np.zeros(0, np.float32)) == []


def test_long_clips_are_cut_into_chunks_and_nothing_is_lost():
    signal = wave(5 * 16000 + 37)
    front_end = WhisperFrontEnd(chunk_seconds=2)
    chunks = front_end.chunks(signal)
    assert [chunk.num_frames for chunk in chunks] == [200, 200, 101]
    np.testing.assert_array_equal(chunks[1].features, front_end.extract(signal[32000:64000]).features)


def test_a_front_end_is_read_back_from_json():
    for front_end in (WhisperFrontEnd(num_mel_bins=128, padding="margin", margin_seconds=1), KaldiFrontEnd()):
        assert TypeAdapter(FrontEnd).validate_json(front_end.model_dump_json()) == front_end
