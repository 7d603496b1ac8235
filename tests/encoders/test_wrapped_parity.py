"""Encoders that wrap transformers: loaded from a folder that transformers saved, with its heads and other parts in it,
each gives the states of transformers' own forward on transformers' own features."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from lalm.encoders import build_encoder, encoder_fingerprint, load_encoder
from lalm.encoders.base import AudioEncoder
from lalm.encoders.codecs import SMALL_DAC, SMALL_ENCODEC, SMALL_MIMI
from lalm.encoders.speech_transformers import RANDOM_SIZES as SPEECH_SIZES
from lalm.errors import ModelError
from lalm.recipe.encoders import EncoderOptions

TINY_LM = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
}
TINY_WHISPER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_mel_bins": 128,
    "max_source_positions": 100,
}
TINY_CLAP_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 32,
}
TINY_HTSAT = {"patch_embeds_hidden_size": 8, "depths": [1, 1, 2, 1], "num_attention_heads": [2] * 4, "hidden_size": 64}
LENGTHS = (16000, 11234)


def section(name: str, base: Path | str, **options):
    return TypeAdapter(EncoderOptions).validate_python({"name": name, "base": str(base), **options})


def random_model(build: Callable[[], transformers.PreTrainedModel]) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    return model


def waves(rate_hz: int = 16000) -> list[np.ndarray]:
    return [np.random.default_rng(n).normal(0.01, 0.1, n * rate_hz // 16000).astype(np.float32) for n in LENGTHS]


@torch.no_grad()
def states_of(encoder: AudioEncoder, clips: list[np.ndarray]) -> list[torch.Tensor]:
    """Both clips in one batch, with noise behind the shorter."""
    chunks = [encoder.front_end.extract(clip) for clip in clips]
    features = torch.randn(len(chunks), chunks[0].features.shape[0], max(c.features.shape[1] for c in chunks))
    for row, chunk in zip(features, chunks, strict=True):
        row[:, : chunk.features.shape[1]] = torch.from_numpy(chunk.features)
    output = encoder(features, torch.tensor([chunk.num_frames for chunk in chunks]))
    return [states[:steps] for states, steps in zip(output.states, output.num_steps.tolist(), strict=True)]


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=atol, rtol=1e-4)


def speech(name: str, *, is_base: bool) -> transformers.PreTrainedModel:
    kind = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "mert": "Hubert", "wavlm": "WavLM"}[name]
    norms = {"feat_extract_norm": "group" if is_base else "layer", "do_stable_layer_norm": not is_base}
    config = getattr(transformers, f"{kind}Config")(**SPEECH_SIZES, **norms, vocab_size=12)
    return random_model(lambda: getattr(transformers, f"{kind}ForCTC")(config))


def save_speech(model: transformers.PreTrainedModel, folder: Path, *, rate_hz: int = 16000) -> Path:
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=rate_hz, do_normalize=True).save_pretrained(folder)
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("is_base", [True, False])
@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm"])
def test_speech_equals_transformers(tmp_path, name, is_base):
    model = speech(name, is_base=is_base)
    save_speech(model, tmp_path)
    reference = model.base_model
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    outputs = [
        reference(extractor(w, sampling_rate=16000, return_tensors="pt").input_values, output_hidden_states=True)
        for w in waves()
    ]
    for ours, theirs in zip(states_of(load_encoder(section(name, tmp_path)), waves()), outputs, strict=True):
        close(ours, theirs.last_hidden_state[0])
    first = load_encoder(section(name, tmp_path, layers=(0,)))
    for ours, theirs in zip(states_of(first, waves()), outputs, strict=True):
        close(ours, theirs.hidden_states[1][0])
    if not is_base:
        batch = extractor(waves(), padding=True, sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
        masked = reference(batch.input_values, attention_mask=batch.attention_mask).last_hidden_state
        for ours, theirs in zip(states_of(load_encoder(section(name, tmp_path)), waves()), masked, strict=True):
            close(ours, theirs[: len(ours)])


def test_padding_would_leak_through_the_group_norm_of_base_models(tmp_path):
    model = speech("wav2vec2", is_base=True).base_model
    short = torch.from_numpy(waves()[1])
    with torch.no_grad():
        alone = model(short[None]).last_hidden_state[0]
        padded = model(torch.nn.functional.pad(short, (0, 16000))[None]).last_hidden_state[0, : len(alone)]
    assert (alone - padded).abs().max() > 0.05, "then clips of all lengths could be run together"


@pytest.mark.parity
def test_mert_is_huberts_network_at_24_khz(tmp_path):
    model = speech("mert", is_base=True)
    save_speech(model, tmp_path, rate_hz=24000)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mert_model", "feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = load_encoder(section("mert", tmp_path))
    assert encoder.front_end.sample_rate_hz == 24000
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=24000, do_normalize=True)
    for ours, wave in zip(states_of(encoder, waves(24000)), waves(24000), strict=True):
        values = extractor(wave, sampling_rate=24000, return_tensors="pt").input_values
        close(ours, model.base_model(values).last_hidden_state[0])
    (tmp_path / "config.json").write_text(json.dumps(config | {"feature_extractor_cqt": True}))
    with pytest.raises(ModelError, match="feature_extractor_cqt: True"):
        load_encoder(section("mert", tmp_path))


@pytest.mark.parity
def test_w2v_bert_equals_transformers(tmp_path):
    from lalm.encoders.w2v_bert import RANDOM_SIZES

    config = transformers.Wav2Vec2BertConfig(**RANDOM_SIZES, vocab_size=12, add_adapter=True)
    model = random_model(lambda: transformers.Wav2Vec2BertForCTC(config))
    extractor = transformers.SeamlessM4TFeatureExtractor()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    reference = model.base_model
    reference.adapter = None
    batch = extractor(waves(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        masked = reference(**batch).last_hidden_state
    for ours, theirs, mask in zip(
        states_of(load_encoder(section("w2v_bert", tmp_path)), waves()), masked, batch.attention_mask, strict=True
    ):
        assert len(ours) == int(mask.sum())
        close(ours, theirs[: len(ours)])


@pytest.mark.parity
def test_ast_equals_transformers(tmp_path):
    from lalm.encoders.ast import RANDOM_SIZES

    model = random_model(lambda: transformers.ASTForAudioClassification(transformers.ASTConfig(**RANDOM_SIZES)))
    extractor = transformers.ASTFeatureExtractor(mean=-3.0, std=4.0)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    encoder = load_encoder(section("ast", tmp_path, frequency="keep"))
    mean = load_encoder(section("ast", tmp_path))
    values = extractor(waves(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        theirs = model.base_model(values).last_hidden_state[:, 2:].unflatten(1, (12, 101))
    columns = [(98 - 16) // 10 + 1, (68 - 16) // 10 + 1]
    for clip, (ours, ours_mean) in enumerate(zip(states_of(encoder, waves()), states_of(mean, waves()), strict=True)):
        expected = theirs[clip, :, : columns[clip]].transpose(0, 1)
        close(ours, expected.flatten(0, 1))
        close(ours_mean, expected.mean(dim=1))


@pytest.mark.parity
def test_ast_at_real_length_equals_a_transformers_model_of_that_length(tmp_path):
    from lalm.encoders.ast import RANDOM_SIZES

    model = random_model(lambda: transformers.ASTModel(transformers.ASTConfig(**RANDOM_SIZES)))
    model.save_pretrained(tmp_path)
    wave = waves()[0]
    short = transformers.ASTModel(transformers.ASTConfig(**{**RANDOM_SIZES, "max_length": 98})).eval()
    state = model.state_dict()
    positions = state["embeddings.position_embeddings"]
    grid = positions[:, 2:].unflatten(1, (12, 101))[:, :, :9].flatten(1, 2)
    short.load_state_dict({**state, "embeddings.position_embeddings": torch.cat([positions[:, :2], grid], dim=1)})
    values = transformers.ASTFeatureExtractor(max_length=98)(wave, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        theirs = short(**values).last_hidden_state[0, 2:].unflatten(0, (12, 9)).mean(dim=0)
    close(states_of(load_encoder(section("ast", tmp_path, padding="real")), [wave])[0], theirs)


@pytest.mark.parity
@pytest.mark.parametrize("enable_fusion", [False, True])
def test_clap_equals_transformers(tmp_path, enable_fusion):
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if enable_fusion else {}
    config = transformers.ClapConfig(
        audio_config={**TINY_HTSAT, **fusion}, text_config=TINY_CLAP_TEXT, projection_dim=16
    )
    model = random_model(lambda: transformers.ClapModel(config))
    truncation = "fusion" if enable_fusion else "rand_trunc"
    extractor = transformers.ClapFeatureExtractor(frequency_min=50, truncation=truncation)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    clips = waves(48000)
    inputs = extractor(clips, sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        is_longer = torch.zeros(2, 1, dtype=torch.bool)
        output = model.audio_model(inputs.input_features.float(), is_longer=is_longer)
    pooled = states_of(load_encoder(section("clap", tmp_path, pooling="mean")), clips)
    steps = [len(states) for states in states_of(load_encoder(section("clap", tmp_path)), clips)]
    assert steps == [4, 3]  # 32 for ten seconds
    for clip, ours in enumerate(states_of(load_encoder(section("clap", tmp_path)), clips)):
        close(ours, output.last_hidden_state[clip].mean(dim=1).T[: steps[clip]], atol=5e-4)
        close(pooled[clip][0], output.pooler_output[clip], atol=5e-4)


@torch.no_grad()
def codec_latents(model: transformers.PreTrainedModel, wave: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(wave)[None, None]
    if isinstance(model, transformers.MimiModel):
        return model.encoder(values).latents[0].T
    if isinstance(model, transformers.DacModel):
        extractor = transformers.DacFeatureExtractor(
            sampling_rate=model.config.sampling_rate, hop_length=model.config.hop_length
        )
        padded = extractor(wave, sampling_rate=model.config.sampling_rate, return_tensors="pt").input_values
        values = torch.as_tensor(np.asarray(padded))
    return model.encoder(values)[0].T


CODECS = {
    "encodec": lambda: transformers.EncodecModel(transformers.EncodecConfig(**SMALL_ENCODEC)),
    "dac": lambda: transformers.DacModel(transformers.DacConfig(**SMALL_DAC)),
    "dac_44khz": lambda: transformers.DacModel(
        transformers.DacConfig(**{**SMALL_DAC, "sampling_rate": 44100, "downsampling_ratios": [2, 4, 8, 8]})
    ),
    "mimi": lambda: transformers.MimiModel(transformers.MimiConfig(**SMALL_MIMI)),
}


@pytest.mark.parity
@pytest.mark.parametrize("codec", CODECS)
def test_codecs_equal_transformers(tmp_path, codec):
    model = random_model(CODECS[codec])
    model.save_pretrained(tmp_path)
    encoder = load_encoder(section(codec.split("_")[0], tmp_path))
    assert encoder.front_end.sample_rate_hz == model.config.sampling_rate
    clips = waves(model.config.sampling_rate)
    for ours, wave in zip(states_of(encoder, clips), clips, strict=True):
        theirs = codec_latents(model, wave)
        assert len(ours) == len(theirs)
        close(ours, theirs)


@pytest.mark.parity
def test_encodec_at_48_khz_normalises_both_channels(tmp_path):
    config = transformers.EncodecConfig(
        **SMALL_ENCODEC,
        sampling_rate=48000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        norm_type="time_group_norm",
        use_causal_conv=False,
    )
    model = random_model(lambda: transformers.EncodecModel(config))
    model.save_pretrained(tmp_path)
    encoder = load_encoder(section("encodec", tmp_path))
    assert encoder.front_end.chunk_seconds == 1
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output[0].T))
    clip = waves(48000)[0]
    with torch.no_grad():
        model._encode_frame(torch.from_numpy(np.stack([clip, clip]))[None], bandwidth=config.target_bandwidths[0])
    close(states_of(encoder, [clip])[0], seen[0])


def whole_model(name: str) -> transformers.PreTrainedModel:
    kind = {"qwen2_audio": "Qwen2Audio", "audio_flamingo3": "AudioFlamingo3"}[name]
    config = getattr(transformers, f"{kind}Config")(audio_config=TINY_WHISPER, text_config=TINY_LM)
    return random_model(lambda: getattr(transformers, f"{kind}ForConditionalGeneration")(config))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["qwen2_audio", "audio_flamingo3"])
@pytest.mark.parametrize("seconds", [0.9, 1.985, 2.0])
@torch.no_grad()
def test_encoders_of_audio_models_equal_transformers(tmp_path, name, seconds):
    model = whole_model(name)
    model.save_pretrained(tmp_path)
    tower = model.audio_tower if hasattr(model, "audio_tower") else model.model.audio_tower
    wave = waves()[0]
    wave = np.resize(wave, round(seconds * 16000))
    extractor = transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=2)
    batch = extractor(wave, sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
    if name == "audio_flamingo3":
        theirs = tower(batch.input_features, input_features_mask=batch.attention_mask).last_hidden_state[0]
    else:
        steps = (int(batch.attention_mask.sum()) - 1) // 2 + 1
        mask = torch.zeros(1, 1, 100, 100).masked_fill_(torch.arange(100) >= steps, -torch.inf)
        theirs = tower(batch.input_features, attention_mask=mask).last_hidden_state[0]
    ours = states_of(load_encoder(section(name, tmp_path)), [wave])[0]
    assert len(ours) == int(tower._get_feat_extract_output_lengths(batch.attention_mask.sum(-1))[1])
    close(ours, theirs[: len(ours)])


@pytest.mark.parity
@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm", "mert", "qwen2_audio", "audio_flamingo3", "mimi"])
def test_the_length_rule_is_the_one_that_transformers_states(name):
    encoder = build_encoder(section(name, "random"))
    lengths = torch.tensor([*range(400, 4000), *range(4001, 480_000, 997)])
    if name == "mimi":
        theirs = encoder.model.get_encoded_length(lengths)
    elif name in ("qwen2_audio", "audio_flamingo3"):
        theirs = encoder.model._get_feat_extract_output_lengths((lengths + 159) // 160)[1]
    else:
        theirs = encoder.model._get_feat_extract_output_lengths(lengths)
    assert [encoder.length_rule.count(length) for length in lengths.tolist()] == theirs.tolist()


def test_a_folder_of_another_model_is_refused(tmp_path):
    save_speech(speech("wavlm", is_base=True), tmp_path)
    with pytest.raises(ModelError, match=r"holds a 'wavlm' model; this encoder takes 'hubert'"):
        build_encoder(section("hubert", tmp_path))
    with pytest.raises(ModelError, match=r"base 'someone/wavlm' is no folder here"):
        load_encoder(section("wavlm", "someone/wavlm"))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        build_encoder(section("wavlm", tmp_path))


def test_whether_the_waveform_is_normalised_is_not_guessed(tmp_path):
    save_speech(speech("wavlm", is_base=True), tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="set `normalised` to true or false"):
        build_encoder(section("wavlm", tmp_path))
    assert build_encoder(section("wavlm", tmp_path, normalised=False)).front_end.is_normalised is False


@pytest.mark.parametrize("fault", ["missing", "left over", "other shape", "no safetensors"])
def test_weights_must_fit_exactly(tmp_path, fault):
    save_speech(speech("hubert", is_base=True), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "hubert.encoder.layers.0.layer_norm.weight"
    if fault == "missing":
        del state[name]
    elif fault == "left over":
        state["hubert.encoder.layers.7.layer_norm.weight"] = torch.zeros(32)
    elif fault == "other shape":
        state[name] = torch.zeros(31)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    if fault == "no safetensors":
        (tmp_path / "model.safetensors").unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no weights as safetensors" if fault == "no safetensors" else "does not fit"):
        load_encoder(section("hubert", tmp_path))


def test_the_fingerprint_follows_weights_and_options(tmp_path):
    folder = save_speech(speech("hubert", is_base=True), tmp_path / "a")
    before = encoder_fingerprint(section("hubert", folder))
    assert encoder_fingerprint(section("hubert", shutil.copytree(folder, tmp_path / "b"))) == before
    assert encoder_fingerprint(section("hubert", folder, layers=(0,))) != before
    assert encoder_fingerprint(section("hubert", folder, chunk_seconds=20)) != before
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    unnormalised = encoder_fingerprint(section("hubert", folder))
    assert unnormalised != before
    state = load_file(folder / "model.safetensors")
    state["hubert.encoder.layers.0.layer_norm.weight"] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert encoder_fingerprint(section("hubert", folder)) != unnormalised
