"""Fitting the centres of units on a recipe's own clips."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lalm.cli import app
from lalm.data.units import fit_units
from lalm.encoders import load_encoder
from lalm.encoders.units import read_centres
from lalm.errors import DataError, RecipeError
from lalm.recipe.load import load_recipe

COUNT = 12


def changes(corpus, **units):
    encoder = {"name": "hubert", "base": "random", "dtype": "float32", "units": {"count": COUNT, **units}}
    records = "data.sources.train.records=data.jsonl"
    return [f"data.folder={corpus}", records, f"encoders={json.dumps([encoder])}", "projector={name: units}"]


@pytest.fixture
def recipe(corpus):
    return load_recipe("tiny", changes(corpus))


def test_fitted_centres_are_nearer_than_as_many_states(recipe):
    torch.manual_seed(0)
    fitted = fit_units(recipe, progress=False)
    torch.manual_seed(0)
    again = fit_units(recipe, progress=False)
    assert np.array_equal(fitted.centres, again.centres)
    assert fitted.centres.shape == (COUNT, 32)
    assert fitted.num_clips == 6
    torch.manual_seed(0)
    encoder = load_encoder(recipe.encoders[0].model_copy(update={"units": None}))
    steps = sum(encoder.length_rule.count(round((0.3 + 0.2 * number) * 16000)) for number in range(6))
    assert fitted.num_states == steps
    torch.manual_seed(0)
    few = fit_units(recipe.model_copy(update={"seed": 3}), max_states=100, progress=False)
    assert abs(few.num_states - 100) <= 6
    assert not np.array_equal(few.centres, fitted.centres)


def test_too_few_states_are_refused(corpus):
    with pytest.raises(DataError, match=r"give \d+ states, too few for 5000 centres"):
        fit_units(load_recipe("tiny", changes(corpus, count=5000)), progress=False)


def test_a_recipe_without_units_is_refused():
    with pytest.raises(RecipeError, match="'tiny': no encoder has units"):
        fit_units(load_recipe("tiny"), progress=False)


def test_the_command_writes_where_the_recipe_looks(tmp_path, corpus):
    path = tmp_path / "deep" / "km.safetensors"
    arguments = ["units", "fit", "tiny", *changes(corpus, centres=str(path))]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"{COUNT} centres of width 32" in done.output
    assert read_centres(path).shape == (COUNT, 32)
    assert [file.name for file in path.parent.iterdir()] == ["km.safetensors"]
    with pytest.raises(RecipeError, match=r"km.safetensors: is there already"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(RecipeError, match=r"names no file. Set it, or give one with --out"):
        CliRunner().invoke(app, ["units", "fit", "tiny", *changes(corpus)], catch_exceptions=False)
    with pytest.raises(RecipeError, match=r"km.npz: centres are written as .safetensors"):
        CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "km.npz")], catch_exceptions=False)
