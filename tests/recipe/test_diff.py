"""Differences of recipes are named by a path that can be used as an override."""

from __future__ import annotations

from lalm.recipe.diff import ABSENT, diff_recipes
from lalm.recipe.load import load_recipe


def test_equal_recipes_have_none():
    assert diff_recipes(load_recipe("tiny"), load_recipe("tiny")) == []


def test_changed_settings_are_found_by_name():
    before = load_recipe("tiny")
    after = load_recipe("tiny", ["stages.instruct.steps=9", "data.sources.more={records: x.jsonl}", "seed=1"])
    found = {path: (old, new) for path, old, new in diff_recipes(before, after)}
    assert found["seed"] == (0, 1)
    assert found["stages.instruct.steps"] == (4, 9)
    assert found["data.sources.more"][0] == ABSENT
    assert len(found) == 3


def test_a_path_is_an_override():
    before, after = load_recipe("tiny"), load_recipe("tiny", ["stages.align.warmup_steps=2"])
    ((path, _, value),) = diff_recipes(before, after)
    assert load_recipe("tiny", [f"{path}={value}"]) == after


def test_another_projector_and_another_order_are_found():
    before = load_recipe("tiny")
    stages = before.stages[::-1]
    assert ("stages (order)", ["align", "instruct"], ["instruct", "align"]) in diff_recipes(
        before, before.model_copy(update={"stages": stages})
    )
    paths = [path for path, _, _ in diff_recipes(before, load_recipe("tiny", ["projector={name: mlp}"]))]
    assert "projector.name" in paths
