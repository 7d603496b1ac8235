"""One set of weights in every form gives the same encoder; what does not fit exactly is refused."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper_files import (
    tiny_whisper,
    unchanged,
    write_ctranslate2,
    write_model_bin,
    write_openai,
    write_transformers,
)

from lalm.encoders import build_encoder, encoder_fingerprint, load_encoder
from lalm.encoders.whisper_formats import OPENAI_MODULES, locate_whisper, read_whisper_sizes
from lalm.errors import ModelError
from lalm.recipe.encoders import WhisperSection

pytest.importorskip("whisper", reason="openai-whisper is the reference: pip install 'lalm[whisper]'")


@pytest.fixture(scope="module")
def reference():
    return tiny_whisper()


@pytest.fixture
def write(tmp_path, reference):
    """Form, and what to change in its weights -> the base that names a file of it."""

    def writer(form: str, change=unchanged) -> str:
        at = tmp_path / form.replace(" ", "_")
        match form:
            case "openai":
                return str(write_openai(at.with_suffix(".pt"), reference, change=change))
            case "transformers whole":
                return str(write_transformers(at, reference, change=change))
            case "transformers base":
                return str(write_transformers(at, reference, prefix="encoder."))
            case "transformers encoder":
                return str(write_transformers(at, reference, prefix="", change=change))
            case "transformers shards":
                return str(write_transformers(at, reference, shards=3))
            case _:
                return str(write_ctranslate2(at, reference, dtype=form.split()[1], change=change))

    return writer


EXACT = ["openai", *(f"transformers {form}" for form in ("whole", "base", "encoder", "shards")), "ctranslate2 float32"]


def features() -> torch.Tensor:
    return torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(1))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("form", "tolerance"),
    [*((form, 1e-5) for form in EXACT), ("ctranslate2 float16", 0.02), ("ctranslate2 int8", 0.2)],
)
def test_states_equal_openai_whispers_own(reference, write, form, tolerance):
    encoder = load_encoder(WhisperSection(base=write(form)))
    with torch.no_grad():
        expected = reference.encoder(features())
        output = encoder(features(), torch.tensor([100, 100]))
    assert output.num_steps.tolist() == [50, 50]
    torch.testing.assert_close(output.states, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("form", ["openai", "transformers whole", "ctranslate2 float16"])
def test_sizes_are_known_before_the_weights(write, form):
    base = write(form)
    wanted = {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 3, "max_source_positions": 50}
    assert wanted.items() <= read_whisper_sizes(base).items()
    with torch.device("meta"):
        empty = build_encoder(WhisperSection(base=base))
    assert next(empty.parameters()).is_meta
    assert {name: value.shape for name, value in empty.named_parameters()} == {
        name: value.shape for name, value in load_encoder(WhisperSection(base=base)).named_parameters()
    }


def test_fingerprint_follows_weights_and_options(write):
    base = write("transformers whole")
    first = encoder_fingerprint(WhisperSection(base=base))
    assert encoder_fingerprint(WhisperSection(base=base)) == first
    assert encoder_fingerprint(WhisperSection(base=base, padding="real")) != first
    assert encoder_fingerprint(WhisperSection(base=write("transformers encoder"))) != first
    weights = Path(base, "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert encoder_fingerprint(WhisperSection(base=base)) != first


NAMES = {
    "openai": ("encoder.conv2.bias", "encoder.blocks.0.adapter.weight"),
    "transformers whole": ("model.encoder.conv2.bias", "model.encoder.layers.0.adapter.weight"),
    "transformers encoder": ("conv2.bias", "layers.0.adapter.weight"),
    "ctranslate2 float32": ("encoder/conv2/bias", "encoder/layer_0/adapter/weight"),
}


@pytest.mark.parametrize("form", NAMES)
def test_a_missing_weight_is_refused(write, form):
    def change(weights: dict) -> None:
        del weights[NAMES[form][0]]

    base = write(form, change)
    with pytest.raises(ModelError, match=r"(?s)do not fit.*conv2\.bias"):
        load_encoder(WhisperSection(base=base))


@pytest.mark.parametrize("form", NAMES)
def test_a_weight_that_is_left_over_is_refused(write, form):
    def change(weights: dict) -> None:
        weights[NAMES[form][1]] = torch.zeros(2, 2) if "/" not in NAMES[form][1] else np.zeros((2, 2), np.float32)

    base = write(form, change)
    with pytest.raises(ModelError, match="adapter"):
        load_encoder(WhisperSection(base=base))


def test_a_weight_of_another_size_is_refused(write):
    def change(weights: dict) -> None:
        weights["encoder.conv1.bias"] = torch.zeros(7)

    with pytest.raises(ModelError, match=r"(?s)do not fit.*conv1\.bias"):
        load_encoder(WhisperSection(base=write("openai", change)))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"dims": {}, "model_state_dict": Evil()}))
    with pytest.raises(ModelError, match=r"evil\.pt: is no official Whisper checkpoint"):
        load_encoder(WhisperSection(base=str(path)))
    torch.save({"dims": {}, "model_state_dict": Evil()}, path)
    with pytest.raises(ModelError, match=r"evil\.pt: is no official Whisper checkpoint"):
        load_encoder(WhisperSection(base=str(path)))
    assert not (tmp_path / "ran").exists()


def test_another_checkpoint_than_whispers_is_refused(tmp_path):
    torch.save({"state": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="lacks 'dims'"):
        load_encoder(WhisperSection(base=str(tmp_path / "other.pt")))


def test_a_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="is a llama model, not Whisper"):
        load_encoder(WhisperSection(base=str(tmp_path)))


def test_a_folder_with_pickled_weights_only_is_refused(write):
    base = write("transformers whole")
    Path(base, "model.safetensors").rename(Path(base, "pytorch_model.bin"))
    with pytest.raises(ModelError, match="safetensors only, not from pickles"):
        load_encoder(WhisperSection(base=base))


@pytest.mark.parametrize(
    ("cut", "message"),
    [(0, "is empty"), (10, "cut off"), (5000, "cut off")],
    ids=["empty", "in the head", "in a weight"],
)
def test_a_truncated_model_bin_is_refused(write, cut, message):
    path = Path(write("ctranslate2 float16"), "model.bin")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=rf"model\.bin.* {message}"):
        load_encoder(WhisperSection(base=str(path.parent)))


def test_another_ctranslate2_model_or_version_is_refused(tmp_path):
    write_model_bin(tmp_path / "model.bin", {"encoder/embeddings/weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ModelError, match="holds no Whisper model"):
        load_encoder(WhisperSection(base=str(tmp_path)))
    write_model_bin(tmp_path / "model.bin", {}, version=5)
    with pytest.raises(ModelError, match="version 5"):
        load_encoder(WhisperSection(base=str(tmp_path)))


def test_openai_names_are_looked_up_in_that_packages_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"knows no such model.*tiny\.en"):
        locate_whisper("openai:enormous")
    with pytest.raises(ModelError, match=r"tiny\.en\.pt is not there.*load_model"):
        locate_whisper("openai:tiny.en")
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.en.pt").write_bytes(b"x")
    assert locate_whisper("openai:tiny.en") == tmp_path / "whisper" / "tiny.en.pt"


def test_a_hub_name_that_cannot_be_had_is_named(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'some/whisper'.*hub.*Name a local folder"):
        load_encoder(WhisperSection(base="some/whisper"))


@pytest.mark.real
@pytest.mark.parity
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_the_packaged_models_give_the_states_of_openai_whispers_own(name):
    """The packaged weights, put into openai-whisper's model by its own names."""
    from whisper.model import AudioEncoder

    encoder = load_encoder(WhisperSection(base=f"package:{name}"))
    sizes = encoder.config_dict()
    theirs = AudioEncoder(80, 1500, sizes["d_model"], sizes["encoder_attention_heads"], sizes["encoder_layers"]).eval()
    back = {ours: theirs for theirs, ours in OPENAI_MODULES.items()}
    state = {}
    for key, value in encoder.model.state_dict().items():
        if key.startswith("layers."):
            _, layer, inner = key.split(".", 2)
            module, _, kind = inner.rpartition(".")
            key = f"blocks.{layer}.{back[module]}.{kind}"
        key = key.replace("embed_positions.weight", "positional_embedding")
        state[re.sub(r"^layer_norm", "ln_post", key)] = value
    theirs.load_state_dict(state)
    noise = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    chunk = encoder.front_end.extract(noise)
    mel = torch.from_numpy(chunk.features)[None]
    with torch.no_grad():
        output = encoder(mel, torch.tensor([chunk.num_frames]))
        expected = theirs(mel)[:, : chunk.num_frames // 2]
    torch.testing.assert_close(output.states, expected, atol=2e-3, rtol=1e-3)
