"""Bases that are not on this machine are counted from the table of known sizes; files that are here win over it."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoConfig

from lalm.encoders import build_encoder
from lalm.errors import ModelError
from lalm.model.build import build_empty, known_sizes, known_text_config
from lalm.model.decoder import empty_language_model, load_config
from lalm.recipe.encoders import EncoderOptions
from lalm.recipe.known_bases import KNOWN_ENCODERS, KNOWN_FRONT_ENDS, KNOWN_LANGUAGE_MODELS
from lalm.recipe.load import load_recipe

# Millions of parameters, as the models' own pages and papers give them; of whole models the encoder's alone.
ENCODERS = {
    "package:whisper-base": ("whisper", 20.6),
    "package:whisper-tiny.en": ("whisper", 8.2),
    "openai/whisper-small": ("whisper", 88.2),
    "openai/whisper-medium": ("whisper", 307.2),
    "openai/whisper-large": ("whisper", 636.8),
    "openai/whisper-large-v2": ("whisper", 636.8),
    "openai/whisper-large-v3": ("whisper", 637.0),
    "Qwen/Qwen2-Audio-7B": ("qwen2_audio", 637.0),
    "Qwen/Qwen2-Audio-7B-Instruct": ("qwen2_audio", 637.0),
    "nvidia/audio-flamingo-3-hf": ("audio_flamingo3", 637.0),
    "mistralai/Voxtral-Mini-3B-2507": ("voxtral", 637.0),
    "mistralai/Voxtral-Small-24B-2507": ("voxtral", 637.0),
    "ibm-granite/granite-speech-3.3-2b": ("granite_speech", 440.0),
    "ibm-granite/granite-speech-3.3-8b": ("granite_speech", 440.0),
    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt": ("beats", 90.7),
    "MIT/ast-finetuned-audioset-16-16-0.442": ("ast", 85.6),
    "as_46.6.pth": ("cav_mae", 85.6),
    "laion/clap-htsat-unfused": ("clap", 27.5),
    "microsoft/wavlm-large": ("wavlm", 315.5),
    "m-a-p/MERT-v1-330M": ("mert", 315.4),
    "voidful/mhubert-base": ("hubert", 94.4),
    "facebook/w2v-bert-2.0": ("w2v_bert", 580.5),
}
LANGUAGE_MODELS = {
    "huggyllama/llama-7b": 6738.4,
    "lmsys/vicuna-7b-v1.1": 6738.4,
    "lmsys/vicuna-7b-v1.5": 6738.4,
    "lmsys/vicuna-13b-v1.1": 13015.9,
    "meta-llama/Llama-2-7b-hf": 6738.4,
    "meta-llama/Llama-2-7b-chat-hf": 6738.4,
    "TinyLlama/TinyLlama_v1.1": 1100.0,
    "package:smollm2-135m-instruct": 134.5,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361.8,
    "Qwen/Qwen1.5-7B": 7721.3,
    # Inside whole models, which have 8.4 billion (Qwen2-Audio) with encoder and projector.
    "Qwen/Qwen2-Audio-7B": 7754.9,
    "Qwen/Qwen2-Audio-7B-Instruct": 7754.9,
    "nvidia/audio-flamingo-3-hf": 7612.8,
    # Granite 3.3's 2.53 and 8.17 billion; of Voxtral's 4.68 and 24.3 billion what encoder and projector leave.
    "ibm-granite/granite-speech-3.3-2b": 2533.5,
    "ibm-granite/granite-speech-3.3-8b": 8170.9,
    "mistralai/Voxtral-Mini-3B-2507": 4014.1,
    "mistralai/Voxtral-Small-24B-2507": 23572.4,
    "Qwen/Qwen2.5-0.5B-Instruct": 494.0,
    "Qwen/Qwen2.5-7B-Instruct": 7615.6,
    "gpt2": 124.4,
    "facebook/opt-iml-max-1.3b": 1315.8,
    # 2849.8 with a table of words for the answer of its own, which transformers 5 ties to the other.
    "google/flan-t5-xl": 2784.0,
}


def section_of(base, **options):
    return TypeAdapter(EncoderOptions).validate_python({"name": ENCODERS[base][0], "base": base, **options})


def language_section(base):
    return load_recipe("tiny", [f"language_model.base={base}"]).language_model


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path, monkeypatch):
    """No model was downloaded before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_every_known_base_is_counted_here():
    assert set(KNOWN_ENCODERS) == set(ENCODERS)
    assert set(KNOWN_FRONT_ENDS) <= set(ENCODERS)
    assert set(KNOWN_LANGUAGE_MODELS) == set(LANGUAGE_MODELS)


@pytest.mark.parametrize("base", KNOWN_ENCODERS)
def test_an_encoder_has_its_published_size(base):
    section = section_of(base)
    with torch.device("meta"):
        encoder = build_encoder(section, known_sizes(section))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(ENCODERS[base][1], abs=0.05)


@pytest.mark.parametrize("base", KNOWN_LANGUAGE_MODELS)
def test_a_language_model_has_its_published_size(base):
    with torch.device("meta"):
        model = empty_language_model(known_text_config(language_section(base)))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(LANGUAGE_MODELS[base], abs=0.05)


@pytest.mark.real("models")
def test_packaged_models_have_the_known_sizes():
    for base in filter(is_packaged, KNOWN_ENCODERS):
        assert known_sizes(section_of(base)) is None
        with torch.device("meta"):
            ours, known = build_encoder(section_of(base)), build_encoder(section_of(base), KNOWN_ENCODERS[base])
        assert shapes(ours) == shapes(known)
    for base in filter(is_packaged, KNOWN_LANGUAGE_MODELS):
        config, sizes = load_config(language_section(base)), KNOWN_LANGUAGE_MODELS[base]
        assert known_text_config(language_section(base)) is None
        assert {name: getattr(config, name) for name in sizes} == sizes


def is_packaged(base):
    return base.startswith("package:")


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_a_packaged_model_that_is_not_converted_is_counted_from_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("LALM_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "source.json").write_text("{}")
    (folder / "model.gguf").write_bytes(b"not converted yet")
    assert known_text_config(language_section("package:smollm2-135m-instruct")).num_hidden_layers == 30
    assert not (tmp_path / "converted").exists()


def test_a_folder_on_this_machine_is_read_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "openai" / "whisper-small"
    folder.mkdir(parents=True)
    assert known_sizes(section_of("openai/whisper-small")) is None
    AutoConfig.for_model("gpt2", n_layer=3).save_pretrained(tmp_path / "gpt2")
    assert known_text_config(language_section("gpt2")) is None
    assert build_empty(load_recipe("tiny", ["language_model.base=gpt2"])).config.text_config.num_hidden_layers == 3


def test_a_configuration_that_was_downloaded_before_wins(empty_hub_cache):
    whisper = {**KNOWN_ENCODERS["openai/whisper-small"], "encoder_layers": 3}
    for base, config in (("openai/whisper-small", whisper), ("gpt2", {"model_type": "gpt2", "n_layer": 3})):
        folder = empty_hub_cache / f"models--{base.replace('/', '--')}"
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(config))
    assert known_sizes(section_of("openai/whisper-small"))["encoder_layers"] == 3
    assert known_text_config(language_section("gpt2")).num_hidden_layers == 3


def test_a_base_that_nobody_knows_is_left_to_its_loader():
    section = TypeAdapter(EncoderOptions).validate_python({"name": "hubert", "base": "some/hubert"})
    assert known_sizes(section) is None
    with pytest.raises(ModelError, match=r"base 'some/hubert' is no folder here"):
        build_empty(load_recipe("tiny", ["encoders=[{name: hubert, base: some/hubert}]"]))
    assert known_text_config(language_section("some/model")) is None
