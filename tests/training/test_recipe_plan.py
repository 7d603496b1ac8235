"""What was counted of a recipe is read from the cache until something that it depends on changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lalm.recipe.load import load_recipe
from lalm.training import recipe_plan
from lalm.training.recipe_plan import plan_key, plan_recipe


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the recipes that were computed, not read."""
    names: list[str] = []
    compute = recipe_plan._computed

    def noted(recipe, has_data, report):
        names.append(recipe.name)
        return compute(recipe, has_data, report)

    monkeypatch.setattr(recipe_plan, "_computed", noted)
    return names


def plans(cache: Path) -> list[Path]:
    return sorted((cache / "plans").glob("*.json"))


def test_the_second_time_it_is_read_and_the_same(computed: list[str], tiny_data: Path):
    recipe = load_recipe("tiny", [f"data.folder={tiny_data}"])
    first = plan_recipe(recipe, has_data=True)
    assert plan_recipe(recipe, has_data=True) == first
    assert computed == ["tiny"]
    assert first.shapes is not None
    assert "6 records on 6 clips" in first.data
    assert plan_recipe(recipe, has_data=True, fresh=True) == first
    assert computed == ["tiny"] * 2


def test_a_damaged_plan_is_counted_again(computed: list[str], own_cache: Path):
    recipe = load_recipe("tiny")
    first = plan_recipe(recipe, has_data=False)
    for text in ("", "{}", '{"model": 3}'):
        plans(own_cache)[0].write_text(text)
        assert plan_recipe(recipe, has_data=False) == first
    assert len(computed) == 4
    assert plan_recipe(recipe, has_data=False) == first
    assert len(computed) == 4


def test_where_nothing_can_be_kept_it_is_counted_each_time(computed: list[str], monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LALM_CACHE", str(tmp_path / "file"))
    recipe = load_recipe("tiny")
    assert plan_recipe(recipe, has_data=False) == plan_recipe(recipe, has_data=False)
    assert len(computed) == 2


def test_the_oldest_plans_go(monkeypatch, own_cache: Path):
    monkeypatch.setattr(recipe_plan, "MAX_STORED", 1)
    for rank in (4, 8):
        plan_recipe(load_recipe("tiny", [f"language_model.lora.rank={rank}"]), has_data=False)
    assert len(plans(own_cache)) == 1


def test_the_key_changes_with_whatever_a_plan_depends_on(monkeypatch, tiny_data: Path, tmp_path: Path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    overrides = [f"data.folder={tiny_data}", f"language_model.base={base}"]
    keys = [plan_key(load_recipe("tiny", overrides))]
    assert plan_key(load_recipe("tiny", overrides)) == keys[0]

    def note() -> None:
        keys.append(plan_key(load_recipe("tiny", overrides)))

    (base / "config.json").write_text(json.dumps({"hidden_size": 8}))
    note()
    with (tiny_data / "train.jsonl").open("a") as file:
        file.write("\n")
    note()
    overrides.append("stages.align.steps=3")
    note()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    note()
    monkeypatch.setattr(recipe_plan, "version", lambda name: "9.9")
    note()
    monkeypatch.setattr(recipe_plan, "_own_source", lambda: "changed")
    note()
    monkeypatch.setattr(recipe_plan, "DEVICE_NODES", (str(base),))
    note()
    assert len(set(keys)) == len(keys)


def test_a_plan_that_was_counted_is_shown_without_torch():
    """A subprocess, as this one has read torch already."""
    code = (
        "import sys, lalm.cli\nsys.argv = ['lalm', 'check', 'tiny']\n"
        "lalm.cli._leave_at_once = sys.exit\n"
        "try: lalm.cli.start()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    plan_recipe(load_recipe("tiny"), has_data=False)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The recipe can be trained." in done.stdout
