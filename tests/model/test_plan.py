"""The plan of a recipe counts what the built model has."""

from __future__ import annotations

import pytest

from lalm.errors import ModelError
from lalm.model.build import build_model
from lalm.model.plan import plan_model
from lalm.recipe.load import load_recipe


def test_counts_are_those_of_the_model():
    recipe = load_recipe("tiny")
    plan = plan_model(recipe)
    model, processor = build_model(recipe)
    counted = {part: sum(value.numel() for _, value in values) for part, values in model.parts().items()}
    assert plan.parameters == counted
    assert plan.positions[10] == processor.num_positions(10 * processor.sampling_rate)
    assert plan.encoders[0].steps_per_second == model.audio_tower.encoders[0].steps_per_second
    align, instruct = plan.stages
    assert align.trained == {"projector": counted["projector"]}
    assert instruct.num_trained == counted["projector"] + counted["lora"]
    assert not plan.problems


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match=r"parts of recipe 'tiny' do not fit together: .*16.*3"):
        plan_model(load_recipe("tiny", ["projector.num_heads=3"]))


def test_lora_on_layers_that_do_not_exist_is_refused():
    with pytest.raises(ModelError, match=r"names no linear layer of"):
        plan_model(load_recipe("tiny", ["language_model.lora.targets=[zzz]"]))


def test_a_stage_counts_what_its_patterns_let_through():
    plan = plan_model(load_recipe("tiny", ["stages.align.only={projector: ['*.to_decoder.*']}"]))
    assert plan.stages[0].trained == {"projector": 16 * 32 + 32}
    assert not plan.problems


def test_a_pattern_that_names_nothing_is_a_problem():
    (problem,) = plan_model(load_recipe("tiny", ["stages.align.only={projector: ['*.zzz']}"])).problems
    assert "stages[0].only.projector: no parameter is named like '*.zzz'" in problem


@pytest.mark.parametrize(("family", "count"), [("gpt2", 2), ("t5", 4)])
def test_a_random_language_model_is_of_the_family_that_is_asked_for(family, count):
    sizes = "{n_embd: 32, n_layer: 2, n_head: 4}" if family == "gpt2" else "{d_model: 32, d_kv: 8, d_ff: 64}"
    recipe = load_recipe(
        "tiny",
        [f"language_model.random_family={family}", f"language_model.random_sizes={sizes}", "data.packing=none"],
    )
    model, _ = build_model(recipe)
    assert model.language_model.config.model_type == family
    lora = {name.split(".lora_A")[0] for name, _ in model.parts()["lora"] if ".lora_A" in name}
    assert len(lora) >= count


def test_a_family_that_does_not_exist_is_refused():
    with pytest.raises(ModelError, match=r"random_family 'lama' is no family of transformers' \(llama, qwen2"):
        plan_model(load_recipe("tiny", ["language_model.random_family=lama"]))


def test_audio_longer_than_the_language_model_takes_is_a_problem():
    (problem,) = plan_model(load_recipe("tiny", ["data.max_audio_seconds=600"])).problems
    assert "data.max_audio_seconds = 600 takes" in problem
    assert "made for 1024" in problem
