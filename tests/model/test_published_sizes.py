"""The recipes have the sizes that the papers print, or say why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lalm.model.plan import plan_model
from lalm.model.published_sizes import SizeComparison, compare_sizes
from lalm.recipe.load import load_recipe
from lalm.recipe.system import PublishedSize
from lalm.resources import list_shipped

SYSTEMS = [Path(file).stem for file in list_shipped("recipes") if load_recipe(Path(file).stem).system is not None]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Whoever asks the network fails, and no model was downloaded before."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_planned_without_network_and_has_the_printed_sizes(name):
    recipe = load_recipe(name)
    plan = plan_model(recipe)
    assert not plan.problems
    assert plan.positions_per_second > 0
    for row in compare_sizes(recipe, plan):
        what = f"{row.describe()}: {row.size.value:,} in the paper, {row.ours:,} here"
        assert row.is_explained, what
        assert not (row.agrees and row.size.differs), f"{what}: it agrees, and yet the recipe says why it differs"


def test_salmonn_trains_about_33_million():
    (trained, positions) = compare_sizes(load_recipe("salmonn_13b"), plan_model(load_recipe("salmonn_13b")))
    # The paper's figures for the same model: 33 M trained, 0.24 % of the whole.
    assert trained.ours == pytest.approx(33e6, rel=0.02)
    assert trained.ours / plan_model(load_recipe("salmonn_13b")).num_parameters == pytest.approx(0.0024, rel=0.02)
    assert positions.ours == 88


def comparison(ours, **size):
    return SizeComparison(PublishedSize.model_validate({"of": "all", "value": 100, "source": "here", **size}), ours)


def test_two_percent_agree_and_three_do_not():
    assert comparison(102).agrees
    assert comparison(98).agrees
    assert not comparison(103).agrees
    assert comparison(103).difference == pytest.approx(0.03)
    assert not comparison(103).is_explained
    assert comparison(103, differs="rounded").is_explained
    assert comparison(3, at_most=True).agrees
    assert not comparison(101, at_most=True).agrees


def test_each_kind_is_taken_from_its_place():
    recipe = load_recipe(
        "salmonn_7b",
        ["system.sizes=[{of: all, value: 1, source: a}, {of: trained, stage: pretrain, value: 1, source: a},"
         "{of: trained, value: 1, source: a}, {of: lora, value: 1, source: a},"
         "{of: positions, seconds: 3.4, value: 1, source: a}]"],
    )  # fmt: skip
    plan = plan_model(recipe)
    lora = 32 * 2 * 8 * (4096 + 4096)
    rows = compare_sizes(recipe, plan)
    assert [row.ours for row in rows] == [
        plan.num_parameters,
        plan.parameters["projector"] + lora,
        lora,
        lora,
        10,  # 3.4 s are 170 steps, ten windows of 17
    ]
    assert [row.describe() for row in rows] == [
        "all", "trained in pretrain", "trained in the last stage", "lora", "positions of 3.4 s",
    ]  # fmt: skip
    assert compare_sizes(load_recipe("tiny"), plan_model(load_recipe("tiny"))) == []
