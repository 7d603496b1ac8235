"""The run folder: which differences of a recipe are refused, and what starting over removes."""

from __future__ import annotations

import pytest

from lalm.errors import RecipeError
from lalm.training import run_folder as folders
from lalm.training.checkpoints import write_json
from lalm.training.run_folder import RunFolder


@pytest.fixture
def run(make_recipe):
    folder = RunFolder(make_recipe().run_folder())
    folders.write_recipe(folder, make_recipe())
    return folder


def changed(make_recipe, place: str, value):
    values = make_recipe().model_dump(mode="json")
    *path, last = place.split(".")
    inner = values
    for key in path:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[last] = value
    return make_recipe(**{name: item for name, item in values.items() if name != "output"})


@pytest.mark.parametrize(
    ("place", "value"),
    [("description", "other words"), ("generation.max_new_tokens", 3), ("stages.0.save_every_steps", 77)],
)
def test_free_changes(run, make_recipe, place, value):
    folders.check_recipe_unchanged(run, changed(make_recipe, place, value))


@pytest.mark.parametrize(
    ("place", "value", "shown"),
    [
        ("seed", 5, "seed: 0 -> 5"),
        ("stages.1.steps", 9, "stages.instruct.steps: 6 -> 9"),
        ("language_model.lora.rank", 8, "language_model.lora.rank: 4 -> 8"),
        ("data.packing", "none", "data.packing: 'shared_prefix' -> 'none'"),
    ],
)
def test_other_changes_are_refused_and_can_be_allowed(run, make_recipe, place, value, shown):
    recipe = changed(make_recipe, place, value)
    with pytest.raises(RecipeError) as caught:
        folders.check_recipe_unchanged(run, recipe)
    assert shown in str(caught.value)
    assert f"--allow-change {place.split('.')[0]}" in str(caught.value)
    folders.check_recipe_unchanged(run, recipe, (place.split(".")[0],))
    with pytest.raises(RecipeError):
        folders.check_recipe_unchanged(run, recipe, ("projector",))


def test_starting_over_removes_only_what_training_wrote(run):
    (run.path / "notes.txt").write_text("mine")
    run.stage("align").mkdir(parents=True)
    run.stage_weights("align").write_bytes(b"")
    assert not run.is_done("align")
    write_json(run.stage("align") / "done.json", {"steps": 3})
    assert run.is_done("align")
    folders.start_over(run)
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]
