"""Recipes are read strictly, every problem at once, and written back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lalm.errors import RecipeError
from lalm.recipe.load import find_recipe, load_recipe, recipe_schema, save_recipe
from lalm.resources import list_shipped, shipped

RECIPES = list_shipped("recipes")

MINIMAL = """\
name: small
encoders:
  - name: whisper
    base: random
projector:
  name: qformer
language_model:
  base: random
data:
  sources:
    train:
      records: train.jsonl
stages:
  - name: align
    learning_rates: {projector: 5e-4}
    steps: 3
"""


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str, name: str = "small.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_file


def problems(path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipe_loads_and_opens_with_its_command(name: str):
    recipe = load_recipe(Path(name).stem)
    assert recipe.name == Path(name).stem
    assert recipe.description
    first = shipped("recipes", name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert f"lalm train recipes/{name}" in first


@pytest.mark.parametrize("name", RECIPES)
def test_saved_recipe_is_equal(name: str, tmp_path: Path):
    recipe = load_recipe(Path(name).stem)
    save_recipe(recipe, tmp_path / "deep" / "recipe.yaml")
    assert load_recipe(tmp_path / "deep" / "recipe.yaml") == recipe
    assert load_recipe(tmp_path / "deep") == recipe
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["recipe.yaml"]


def test_reads_a_file(write):
    recipe = load_recipe(write(MINIMAL))
    assert recipe.stages[0].learning_rates.projector == 5e-4


def test_unknown_key_is_named_with_its_line_and_the_closest_one(write):
    path = write(MINIMAL.replace("    steps: 3", "    steps: 3\n    batch_record: 4"))
    assert problems(path) == [f"{path}: stages[0].batch_record: unknown key. Did you mean 'batch_records'? (line 17)"]


def test_unknown_key_without_a_close_one_lists_what_is_accepted(write):
    path = write(MINIMAL.replace("  base: random\ndata", "  base: random\n  lora: {zzz: 1}\ndata"))
    assert problems(path) == [
        f"{path}: language_model.lora.zzz: unknown key. Accepted: rank, alpha, dropout, targets, variant. (line 9)"
    ]


def test_all_problems_come_at_once(write):
    text = (
        MINIMAL.replace("steps: 3", "steps: many")
        .replace("name: qformer", "name: qfromer")
        .replace("records: train.jsonl", "recods: train.jsonl")
    )
    lines = problems(write(text), "seed=-1", "encoders.whisper.padding=rael", "seeds=3")
    text = "\n".join(lines)
    assert "stages[0].steps: should be a valid integer, unable to parse string as an integer, got 'many'." in text
    assert "projector.name: 'qfromer' is not accepted. Accepted: qformer, mlp, linear, " in text
    assert "Did you mean 'qformer'? (line 6)" in text
    assert "data.sources.train.records: missing." in text
    assert "data.sources.train.recods: unknown key. Did you mean 'records'? (line 12)" in text
    assert "seed: should be greater than or equal to 0, got -1. (override 'seed=-1')" in text
    assert "encoders[0].padding: 'rael' is not accepted. Accepted: full, real, margin. Did you mean 'real'?" in text
    assert "seeds: unknown key. Did you mean 'seed'?" in text
    assert len(lines) == 7


def test_one_problem_of_a_union_is_one_line(write):
    lines = problems(write(MINIMAL), "encoders.0.layers=foo")
    assert len(lines) == 1
    assert (
        "encoders[0].layers: 'foo' is not accepted. Accepted: last, weighted. Or: should be a valid tuple" in lines[0]
    )


def test_contradictions_between_sections_are_one_line_each(write):
    lines = problems(
        write(MINIMAL), "stages.0.sources=[zz]", "language_model.lora=null", "stages.0.learning_rates.lora=1"
    )
    assert len(lines) == 2
    assert "stages[0].sources: no source 'zz' in data.sources (train)" in lines[0]
    assert "stages[0].learning_rates.lora: language_model.lora is null, nothing to train" in lines[1]


def test_a_stage_needs_one_budget(write):
    assert (
        "stages[0]: give exactly one of steps, epochs, records, audio_hours, got steps, epochs."
        in problems(write(MINIMAL), "stages.0.epochs=2")[0]
    )


@pytest.mark.parametrize("path", ["stages[0].steps", "stages.0.steps", "stages.align.steps"])
def test_an_override_names_a_stage_by_number_or_name(write, path: str):
    assert load_recipe(write(MINIMAL), [f"{path}=7"]).stages[0].steps == 7


def test_overrides_are_yaml_and_reach_sections_that_the_file_lacks(write):
    overrides = [
        "generation.max_new_tokens=5",
        "language_model.lora=null",
        "stages.0.tasks=[a, b]",
        "projector={name: mlp}",
    ]
    recipe = load_recipe(write(MINIMAL), [*overrides, "stages.0.learning_rates.projector=1e-4"])
    assert recipe.generation.max_new_tokens == 5
    assert recipe.language_model.lora is None
    assert recipe.stages[0].tasks == ("a", "b")
    assert recipe.stages[0].learning_rates.projector == 1e-4
    assert recipe.projector.name == "mlp"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.steps", "write it as a.b=value"),
        ("=3", "write it as a.b=value"),
        ("stages.algin.steps=3", "stages has no item 'algin'. Accepted: align, or a number from 0 to 0."),
        ("stages.1.steps=3", "stages has no item '1'"),
        ("name.first=3", "name is 'small', which has no 'first'"),
        ("seed=[1", "the value is not valid YAML"),
    ],
)
def test_override_that_cannot_be_used(write, override: str, message: str):
    (line,) = problems(write(MINIMAL), override)
    assert line.startswith(f"override '{override}': ")
    assert message in line


def test_extends_merges_sections_and_replaces_lists(write):
    write(MINIMAL, "base.yaml")
    child = write(
        "extends: base.yaml\nname: child\ndata:\n  max_text_tokens: 9\nprojector:\n  queries: 3\n", "child.yaml"
    )
    recipe = load_recipe(child)
    assert (recipe.name, recipe.data.max_text_tokens, recipe.projector.queries) == ("child", 9, 3)
    assert list(recipe.data.sources) == ["train"]
    assert recipe.stages == load_recipe(child.parent / "base.yaml").stages


def test_extends_with_another_kind_of_section_replaces_it_whole(write):
    write(MINIMAL.replace("  name: qformer", "  name: qformer\n  queries: 3"), "base.yaml")
    recipe = load_recipe(write("extends: base.yaml\nname: child\nprojector: {name: mlp}\n", "child.yaml"))
    assert recipe.projector.name == "mlp"


def test_extends_a_shipped_recipe_by_name(write):
    assert load_recipe(write("extends: tiny\nname: mine\n")).stages == load_recipe("tiny").stages


def test_extends_nothing_or_itself_or_a_list(write):
    assert "no such recipe file" in problems(write("extends: nowhere.yaml\nname: a\n"))[0]
    assert "in a circle" in problems(write("extends: small.yaml\nname: a\n"))[0]
    assert "must be the name of one recipe" in problems(write("extends: [a, b]\nname: a\n"))[0]


def test_a_problem_of_the_extended_file_names_that_file(write):
    base = write(MINIMAL.replace("steps: 3", "step: 3\n    epochs: 1"), "base.yaml")
    assert (
        f"stages[0].step: unknown key. Did you mean 'steps'? (line 16 of {base})"
        in problems(write("extends: base.yaml\nname: child\n", "child.yaml"))[0]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this file holds nothing"),
        ("- a\n", "this file holds list"),
        ("a: [1\n", "is not valid YAML"),
        ("name: a\nname: b\n", "name: given twice (lines 1 and 2)"),
        ("data: {folder: a, folder: b}\n", "data.folder: given twice"),
        ("a: !!python/object:os.system {}\n", "is not valid YAML"),
    ],
)
def test_file_that_is_no_recipe(write, text: str, message: str):
    assert message in problems(write(text))[0]


def test_file_that_is_no_text(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in problems(tmp_path / "a.yaml")[0]


def test_recipe_that_is_not_there(tmp_path: Path):
    assert "Did you mean 'quickstart'?" in problems("quikstart")[0]
    assert "Did you mean 'quickstart'?" in problems("recipes/quickstrat.yaml")[0]
    assert "lalm recipes list" in problems("zzzzz")[0]
    assert "is a folder without a recipe.yaml" in problems(tmp_path)[0]


def test_finds_a_shipped_recipe_with_and_without_ending():
    assert (
        find_recipe("tiny").resolve() == find_recipe("tiny.yaml").resolve() == shipped("recipes", "tiny.yaml").resolve()
    )


def test_schema_is_json_and_describes_the_settings():
    schema = recipe_schema()
    json.dumps(schema)
    assert "extends" in schema["properties"]
    stage = schema["$defs"]["StageSection"]
    assert stage["additionalProperties"] is False
    assert stage["properties"]["batch_records"]["description"] == "Records in one optimizer step, over all processes."


def test_defaults_are_written_with_the_resolved_recipe(write, tmp_path: Path):
    save_recipe(load_recipe(write(MINIMAL)), tmp_path / "out.yaml")
    assert yaml.safe_load((tmp_path / "out.yaml").read_text())["generation"]["max_new_tokens"] == 64
