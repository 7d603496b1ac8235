"""`lalm runs`: the list, the comparison, and what it says where there is nothing."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lalm.cli import app
from lalm.errors import RecipeError
from lalm.recipe.load import save_recipe
from lalm.training.metrics import MetricsFile


@pytest.fixture
def folder(tiny_recipe, tmp_path):
    """Two runs that differ in one setting and in their losses."""
    for name, steps in (("first", 4), ("second", 9)):
        stage = tiny_recipe.stages[0].model_copy(update={"steps": steps})
        recipe = tiny_recipe.model_copy(update={"stages": (stage, *tiny_recipe.stages[1:])})
        save_recipe(recipe, tmp_path / "runs" / name / "recipe.yaml")
        file = MetricsFile(tmp_path / "runs" / name / "metrics.csv")
        file.rewind(0)
        file.add({"stage": "align", "step": 1, "global_step": 1, "loss": 1.0 + steps, "seconds": 65.0})
    return tmp_path / "runs"


def shown(*arguments) -> str:
    result = CliRunner().invoke(app, ["runs", *map(str, arguments)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_runs_are_listed(folder):
    text = shown(folder)
    assert "first" in text
    assert "second" in text
    assert "0 of 2" in text
    assert "1:05" in text
    assert "second" not in shown(folder / "first")


def test_two_runs_are_compared(folder):
    lines = shown(folder / "first", folder / "second").splitlines()
    (setting,) = [line for line in lines if "stages.align.steps" in line]
    assert setting.split()[1::2][1:] == ["4", "9"]
    (loss,) = [line for line in lines if "last loss" in line]
    assert "5" in loss
    assert "10" in loss


def test_nothing_to_list_names_the_command(tmp_path):
    assert f"No runs in {tmp_path}. Train one with: lalm train RECIPE" in shown(tmp_path).replace("\n", "")


def test_three_runs_are_refused(folder):
    with pytest.raises(RecipeError, match="compares two runs, got 3"):
        shown(folder, folder, folder)
