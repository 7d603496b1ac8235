"""A whole audio language model as the base: what transformers computes with it, and what can be done with it here."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AudioFlamingo3Processor, Qwen2AudioProcessor, WhisperFeatureExtractor
from typer.testing import CliRunner
from whole_folders import MEL_BINS, save_tiny

from lalm.cli import app
from lalm.data.records import Turn
from lalm.errors import ModelError, RecipeError
from lalm.inference.generate import Request, generate_answers
from lalm.model.build import build_empty, build_model
from lalm.model.checkpoint import load_run, verify_seals
from lalm.recipe.load import load_recipe, recipe_schema
from lalm.training.train import run_recipe

RATE_HZ = 16000
QUESTION = "What is heard?"
KINDS = ["qwen2_audio", "audioflamingo3", "granite_speech", "voxtral"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def recipe_of(tiny_data, tmp_path):
    """Folder of a whole model -> the recipe that fine-tunes it on `tiny_data`, and more overrides."""

    def make(folder: Path, *overrides: str):
        path = tmp_path / "whole.yaml"
        path.write_text(
            f"name: whole\nbase: {folder}\n"
            "encoders: [{dtype: float32}]\nlanguage_model: {dtype: float32, lora: {rank: 2, targets: qv}}\n"
            f"data: {{folder: {tiny_data}, sources: {{mine: {{records: train.jsonl}}}}}}\n"
            "stages:\n  - {name: adapt, learning_rates: {lora: 1e-3, projector: 1e-3}, steps: 2, batch_records: 4}\n"
            f"generation: {{max_new_tokens: 4}}\noutput: {{folder: {tmp_path / 'run'}, log_to: []}}\n",
            encoding="utf-8",
        )
        return load_recipe(path, overrides)

    return make


def clip(seconds: float) -> np.ndarray:
    return np.random.default_rng(int(100 * seconds)).uniform(-0.5, 0.5, int(seconds * RATE_HZ)).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["qwen2_audio", "audioflamingo3"])
@pytest.mark.parametrize("seconds", [1.0, 2.345])
@torch.no_grad()
def test_logits_are_those_of_transformers(kind, seconds, recipe_of, tmp_path):
    theirs, tokenizer = save_tiny(kind, tmp_path / "whole")
    processor_class = Qwen2AudioProcessor if kind == "qwen2_audio" else AudioFlamingo3Processor
    their_processor = processor_class(WhisperFeatureExtractor(feature_size=MEL_BINS), tokenizer)
    model, processor = build_model(recipe_of(tmp_path / "whole"), device="cpu")
    wave = clip(seconds)
    num_positions = processor.num_positions(len(wave))
    encoded = processor.encode_turns(
        (Turn(role="user", content=QUESTION),), [num_positions], add_generation_prompt=True
    )
    ours = model(input_ids=torch.tensor([[*encoded.input_ids]]), **processor.audio_inputs([wave])).logits

    if kind == "qwen2_audio":
        content = [{"type": "audio", "audio_url": "clip.wav"}, {"type": "text", "text": QUESTION}]
        text = their_processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=their_processor.default_chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
    else:
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            f"<sound>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        )
    inputs = their_processor(text=text, audio=[wave], sampling_rate=RATE_HZ, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == len(encoded.input_ids)
    expected = theirs(**inputs).logits
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-3)
    silent = model(input_ids=torch.tensor([[*encoded.input_ids]]), **processor.audio_inputs([0 * wave])).logits
    assert (silent - ours).abs().max() > 1e-2, "the audio is not heard, so the comparison would show nothing"


def test_a_part_given_beside_the_base_is_refused(recipe_of, tmp_path):
    save_tiny("qwen2_audio", tmp_path / "whole")
    with pytest.raises(RecipeError, match=r"brings its own encoders\[0\]: name is 'qwen2_audio', got 'whisper'"):
        recipe_of(tmp_path / "whole", "encoders=[{name: whisper}]")
    with pytest.raises(RecipeError, match=r"brings its one encoder"):
        recipe_of(tmp_path / "whole", "encoders=[{dtype: float32}, {dtype: float32}]")
    with pytest.raises(RecipeError, match=r"brings its own projector: name is 'linear', got 'qformer'"):
        recipe_of(tmp_path / "whole", "projector.name=qformer")


def test_another_model_is_refused_by_its_kind(recipe_of, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"is a 'llama' model\. Accepted here: qwen2_audio, audioflamingo3, granite_speech, voxtral"
    ):
        recipe_of(tmp_path / "other")


def test_what_the_recipe_says_besides_wins(recipe_of, tmp_path):
    save_tiny("qwen2_audio", tmp_path / "whole")
    recipe = recipe_of(tmp_path / "whole", "language_model.system=Be brief.", "language_model.lora.rank=3")
    assert recipe.base is None
    assert recipe.language_model.system == "Be brief."
    assert recipe.language_model.template == "qwen2_audio"
    assert recipe.language_model.lora.rank == 3
    assert recipe.projector.base == recipe.encoders[0].base == str(tmp_path / "whole")


def test_a_projector_that_does_not_fit_is_refused(recipe_of, tmp_path):
    save_tiny("qwen2_audio", tmp_path / "whole")
    path = tmp_path / "whole" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("multi_modal_projector.linear.bias"))
    tensors[name] = torch.zeros(5)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not fit Qwen2Audio.*multi_modal_projector\.linear\.bias"):
        build_model(recipe_of(tmp_path / "whole"), device="cpu")


def test_the_shipped_recipe_needs_no_network():
    recipe = load_recipe("qwen2_audio_lora")
    model = build_empty(recipe)
    parts = {part: sum(value.numel() for _, value in values) for part, values in model.parts().items()}
    assert 8.2e9 < sum(parts.values()) < 8.6e9
    assert parts["projector"] == 1280 * 4096 + 4096


def test_a_recipe_with_such_a_base_is_checked_without_a_network(kind, recipe_of, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asks a network"))
    save_tiny(kind, tmp_path / "whole")
    recipe_of(tmp_path / "whole")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "whole.yaml")])
    assert result.exit_code == 0, result.output
    assert "language_model" in result.output


def test_an_editor_accepts_a_base_in_place_of_the_parts():
    assert {"required": ["base", "name", "data", "stages"]} in [
        {"required": sorted(option["required"], key=["base", "name", "data", "stages"].index)}
        for option in recipe_schema()["anyOf"]
        if "base" in option["required"]
    ]


@pytest.mark.slow
def test_it_trains_saves_loads_and_answers(kind, recipe_of, tmp_path):
    save_tiny(kind, tmp_path / "whole")
    recipe = recipe_of(tmp_path / "whole")
    run_recipe(recipe, console=Console(file=io.StringIO()))
    assert all(holds for _, holds, _ in verify_seals(tmp_path / "run"))
    model, processor, loaded = load_run(tmp_path / "run", device="cpu")
    assert loaded == recipe
    start = load_file(tmp_path / "whole" / "model.safetensors")
    names = (r"multi_modal_projector\.linear(_1)?\.weight", r"(?<!_)projector\.query")
    (name,) = [name for name in start if any(re.search(part, name) for part in names)]
    trained = next(model.multi_modal_projector.parameters())
    assert not torch.equal(trained, start[name]), "the projector trains"
    assert (trained - start[name]).abs().max() < 0.1, "from the base's own weights"
    asked = [Request((Turn(role="user", content=QUESTION),), (clip(seconds),)) for seconds in (0.6, 1.1)]
    together = generate_answers(model, processor, asked, recipe.generation)
    assert together == [generate_answers(model, processor, [request], recipe.generation)[0] for request in asked]
