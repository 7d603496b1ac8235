"""The tiny twin of a recipe keeps what its parts are and what its stages train, and nothing of their size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lalm.errors import RecipeError
from lalm.recipe.diff import diff_recipes
from lalm.recipe.load import load_recipe
from lalm.resources import list_shipped

RECIPES = [Path(file).stem for file in list_shipped("recipes") if Path(file).stem not in ("quickstart", "own_data")]
RECIPES.remove("quickstart_full")  # on packaged models, which may not be here
KEPT = ("name", "objective", "objectives", "answers", "starts_from", "sources", "tasks", "train_on_inputs", "only",
        "learning_rates", "in_context", "lora_scale", "min_answer_words", "schedule")  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_parts_and_stages_are_the_same(name):
    recipe, twin = load_recipe(name), load_recipe(name, tiny=True)
    assert twin.name == f"tiny_{name}"
    assert twin.system is None
    assert [encoder.name for encoder in twin.encoders] == [encoder.name for encoder in recipe.encoders]
    assert [encoder.layers_as for encoder in twin.encoders] == [encoder.layers_as for encoder in recipe.encoders]
    assert {encoder.base for encoder in twin.encoders} == {"random"}
    assert twin.join == recipe.join
    assert twin.projector.name == recipe.projector.name
    assert (twin.language_model.lora is None) == (recipe.language_model.lora is None)
    assert (twin.language_model.cross_attention is None) == (recipe.language_model.cross_attention is None)
    assert twin.data.sources == recipe.data.sources
    for field in KEPT:
        assert [getattr(s, field) for s in twin.stages] == [getattr(s, field) for s in recipe.stages], field
    assert {stage.steps for stage in twin.stages} == {2}


@pytest.mark.parametrize(
    ("name", "family"), [("ltu", "llama"), ("pengi", "gpt2"), ("audio_flamingo", "opt"), ("speechverse", "t5")]
)
def test_the_family_of_the_language_model_is_kept(name, family):
    assert load_recipe(name, tiny=True).language_model.random_family == family


def test_the_rate_of_audio_is_kept_where_it_is_a_rate():
    for name in ("salmonn_7b", "blsp", "musilingo", "salm"):
        recipe, twin = load_recipe(name), load_recipe(name, tiny=True)
        for steps in (1, 49, 50, 1500):
            assert twin.projector.length_rule().count(steps) == recipe.projector.length_rule().count(steps)


def test_chosen_layers_keep_their_order():
    (encoder,) = load_recipe("gama", tiny=True).encoders
    assert encoder.layers == (0, 1, 2)
    assert encoder.random_sizes == {"num_hidden_layers": 3}


def test_overrides_change_the_twin_and_not_what_it_is_made_of():
    twin = load_recipe("ltu", ["stages.closed.steps=7", "projector.pool_steps=4"], tiny=True)
    assert [stage.steps for stage in twin.stages] == [2, 2, 7, 2]
    assert twin.projector.pool_steps == 4
    with pytest.raises(RecipeError, match=r"projector.pool_stepz: unknown key. Did you mean 'pool_steps'"):
        load_recipe("ltu", ["projector.pool_stepz=4"], tiny=True)


def test_a_twin_of_a_twin_changes_its_name_only():
    twin = load_recipe("salmonn_7b", tiny=True)
    again = {path for path, _, _ in diff_recipes(twin, _twin_of(twin))}
    assert again <= {"name", "description", "data.folder"}


def test_a_base_on_this_machine_tells_its_family(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "hidden_size": 8}))
    language_model = load_recipe("tiny", [f"language_model.base={tmp_path}"]).language_model
    recipe = load_recipe("tiny").model_copy(update={"language_model": language_model})
    assert _twin_of(recipe).language_model.random_family == "qwen3"


def test_a_family_that_only_a_hub_knows_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: tiny\nname: mine\nlanguage_model: {base: some/model}\n")
    with pytest.raises(RecipeError, match=r"--tiny: the family of language_model\.base 'some/model' is not known"):
        load_recipe(path, tiny=True)


def _twin_of(recipe):
    from lalm.recipe.schema import Recipe
    from lalm.recipe.tiny import tiny_twin

    return Recipe.model_validate(tiny_twin(recipe))
