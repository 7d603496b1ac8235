"""The recipe of a set: what is accepted, and that every problem of a file is told with the nearest key."""

import pytest

from data_builders.recipe_reading import find_data_recipe, load_data_recipe, shipped_recipes
from lalm.errors import RecipeError

GOOD = """
name: mine
sources: [{packaged: sonic-pi}]
scenes: {count: {train: 3}, background: 0.5}
questions: {records: {train: {scene_order: 4}}}
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_and_opens_with_its_command(name):
    recipe = load_data_recipe(name)
    assert recipe.name == name
    assert find_data_recipe(name).read_text(encoding="utf-8").startswith(f"# lalm data build {name} ")


def test_what_is_not_written_has_its_default(tmp_path):
    recipe = load_data_recipe(write(tmp_path / "r.yaml", GOOD), {"seed": 4})
    assert (recipe.seed, recipe.output.form, recipe.filters) == (4, "parquet", ())
    assert recipe.size.scenes == {"train": 3, "validation": 0, "test": 0}
    assert recipe.size.effects.background == 0.5
    assert recipe.rounds("train")["scene_order"] == 3
    assert "scene_order" not in recipe.rounds("test")


def test_every_problem_is_told_at_once_with_the_nearest_key(tmp_path):
    text = GOOD.replace("background: 0.5", "bakground: 0.5, reverb: 2").replace("name: mine", "nme: mine")
    with pytest.raises(RecipeError) as caught:
        load_data_recipe(write(tmp_path / "r.yaml", text))
    told = str(caught.value).splitlines()
    assert f"{tmp_path}/r.yaml: scenes.bakground: unknown key. Did you mean 'background'?" in told
    assert f"{tmp_path}/r.yaml: nme: unknown key. Did you mean 'name'?" in told
    assert f"{tmp_path}/r.yaml: name: missing. Every recipe of data must give it." in told
    assert any("scenes.reverb: should be less than or equal to 1, got 2" in line for line in told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("scene_order: 4", "scene_ordr: 4", "the task 'scene_ordr' is not known. Did you mean 'scene_order'?"),
        ("packaged: sonic-pi", "packaged: sonic", "packaged: 'sonic' is not known. Accepted: asterisk, sonic-pi"),
        ("packaged: sonic-pi", "corpus: esc50", "'corpus' and 'folder' go together"),
        ("packaged: sonic-pi", "folder: here", "give either 'packaged' or 'corpus'"),
        ("name: mine", "name: [", "is not YAML"),
        ("{records:", "{languages: [xx], records:", "the language 'xx' is not known"),
        ("packaged: sonic-pi", "packged: sonic-pi", "sources[0].packged: unknown key. Did you mean 'packaged'?"),
    ],
)
def test_what_is_refused(tmp_path, old, new, told):
    assert old in GOOD
    with pytest.raises(RecipeError, match=r"r\.yaml") as caught:
        load_data_recipe(write(tmp_path / "r.yaml", GOOD.replace(old, new)))
    assert told in str(caught.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match=r"'quickstat' is not known. Did you mean 'quickstart'\?"):
        load_data_recipe("quickstat")
