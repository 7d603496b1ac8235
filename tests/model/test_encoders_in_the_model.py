"""Every encoder of the table inside the whole model: planned, built, saved whole and loaded; what trains behind it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lalm import LalmForConditionalGeneration
from lalm.encoders import ENCODERS
from lalm.errors import RecipeError
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run, save_trained
from lalm.model.plan import plan_model
from lalm.recipe.load import load_recipe

SMALL = {"ast": {"random_sizes": {"max_length": 150}}, "beats": {"random_sizes": {"encoder_layers": 1}}}
"""Where the sizes of `base: random` are those of the published model, or need not be."""


def recipe_of(*names: str, join: dict | None = None, **options):
    encoders = [
        {"name": name, "base": "random", "dtype": "float32", **SMALL.get(name, {}), **options} for name in names
    ]
    return load_recipe("tiny", [f"encoders={json.dumps(encoders)}", f"join={json.dumps(join or {})}"])


def waves(rate_hz: int) -> list[np.ndarray]:
    return [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (rate_hz // 2, rate_hz)]


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_saved_whole_and_loaded_every_encoder_gives_its_states(tmp_path, name):
    model, processor = build_model(recipe_of(name))
    model.save_pretrained(tmp_path)
    loaded = LalmForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs = processor.audio_inputs(waves(processor.sampling_rate))
    states, num_steps = model.encode_audio(**inputs)
    again, again_steps = loaded.encode_audio(**inputs)
    assert num_steps.tolist() == again_steps.tolist()
    torch.testing.assert_close(again, states, atol=1e-5, rtol=1e-5)
    positions = [processor.num_positions(len(wave)) for wave in waves(processor.sampling_rate)]
    assert len(model.get_audio_features(**inputs)) == sum(positions)


def test_every_encoder_is_planned_without_weights():
    plan = plan_model(recipe_of(*ENCODERS, join={"rate": "whisper"}))
    rates = {encoder.name: round(encoder.steps_per_second, 2) for encoder in plan.encoders}
    assert rates == {
        "whisper": 50,
        "beats": 49.87,
        "clap": 3.2,
        "ast": 9.33,
        "wav2vec2": 49.97,
        "hubert": 49.97,
        "wavlm": 49.97,
        "mert": 74.97,
        "w2v_bert": 49.97,
        "encodec": 75,
        "dac": 50,
        "mimi": 12.5,
        "qwen2_audio": 25,
        "audio_flamingo3": 25,
        "voxtral": 50,
        "granite_speech": 50,
        "cav_mae": 6.15,
    }
    assert plan.join == "at the steps of whisper"
    assert plan.states_per_second == 50
    assert plan.state_width == sum(encoder.width for encoder in plan.encoders)
    after_another = plan_model(recipe_of("whisper", "clap", join={"axis": "time"}))
    assert (after_another.join, after_another.states_per_second) == (
        "one after the other",
        pytest.approx(53.2, abs=0.4),
    )


def test_a_rate_that_names_no_encoder_is_refused_with_the_recipe():
    with pytest.raises(RecipeError, match=r"join\.rate: .beats. names 0 of the encoders \(whisper, clap\)"):
        recipe_of("whisper", "clap", join={"rate": "beats"})


def test_a_joined_model_keeps_its_join(tmp_path):
    model, processor = build_model(recipe_of("ast", "w2v_bert", join={"axis": "time"}))
    model.save_pretrained(tmp_path)
    loaded = LalmForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs = processor.audio_inputs(waves(processor.sampling_rate))
    assert loaded.audio_tower.join == model.audio_tower.join
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_audio(**inputs)[0], model.encode_audio(**inputs)[0])


def test_the_learned_sum_of_layers_trains_with_the_projector_and_is_in_its_checkpoint(tmp_path):
    recipe = recipe_of("hubert", layers="weighted")
    model, processor = build_model(recipe)
    (weights,) = [value for name, value in model.parts()["projector"] if name.endswith("mix.weights")]
    assert weights.requires_grad
    model.train()
    model.get_audio_features(**processor.audio_inputs(waves(processor.sampling_rate))).square().sum().backward()
    assert weights.grad.abs().sum() > 0
    assert all(value.grad is None and not value.requires_grad for _, value in model.parts()["encoder"])
    with torch.no_grad():
        weights.copy_(torch.tensor([1.5, -0.5]))
    save_trained(tmp_path, model.eval(), processor, recipe, stage="align")
    loaded, _, _ = load_run(tmp_path, device="cpu")
    assert loaded.audio_tower.encoders[0].mix.weights.tolist() == [1.5, -0.5]
