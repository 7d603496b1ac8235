"""What a stage of a recipe may say of its objectives, budgets and parts, and how contradictions are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from lalm.recipe.schema import StageSection

BASE = {"name": "one", "learning_rates": {"projector": 0.1}, "steps": 3}


def stage(**changes) -> StageSection:
    return StageSection.model_validate({**BASE, **changes})


def test_one_name_is_short_for_a_weight_of_1():
    assert stage().objective_weights() == {"language_model": 1.0}
    assert stage(objective="contrastive").objective_weights() == {"contrastive": 1.0}
    weights = {"language_model": 1.0, "contrastive": 0.5}
    assert stage(objectives=weights).objective_weights() == weights


@pytest.mark.parametrize(
    ("budget", "text"),
    [({"steps": 3}, "3 steps"), ({"epochs": 1.5}, "1.5 epochs"), ({"audio_hours": 0.25}, "0.25 audio hours")],
)
def test_the_budget_is_described(budget, text):
    assert stage(**{"steps": None, **budget}).describe_budget() == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1}, "give exactly one of steps, epochs, records, audio_hours, got steps, epochs"),
        ({"steps": None}, "audio_hours, got none"),
        ({"objective": "matching"}, r"learning_rates.heads: matching has a head that starts at random"),
        ({"learning_rates": {"heads": 0.1}}, "only matching and classification have heads"),
        ({"objective": "contrastive", "objectives": {"matching": 1}}, "give 'objective' or 'objectives', not both"),
        ({"objectives": {}}, "objectives: give at least one weight"),
        ({"objectives": {"contrastve": 1}}, "contrastve"),
        ({"learning_rates": {"adapter": 0.1}}, "learning_rates.adapter"),
        ({"only": {"decoder": ["*"]}}, "only.decoder"),
        ({"objectives": {"contrastive": -1}}, "greater than 0"),
        (
            {"objective": "contrastive", "learning_rates": {"projector": 0.1, "lora": 0.1}},
            "the contrastive objective trains projector, encoder and heads only",
        ),
        ({"answers": "continued", "objective": "contrastive"}, "answers: continued: only the language_model"),
        ({"answers": "continued", "evaluate_every_steps": 2}, "held-out records have no continued answers"),
        ({"only": {"encoder": ["*"]}}, r"only.encoder: learning_rates.encoder is not given"),
        ({"stop_after": 2}, "stop_after: needs evaluate_every_steps"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        stage(**changes)


def test_names_of_other_sections_are_checked(tiny_recipe):
    def refused(message, *, data=None, **changes):
        values = tiny_recipe.model_dump(mode="json")
        values["data"] |= data or {}
        values["stages"][1] |= changes
        with pytest.raises(ValidationError, match=message):
            type(tiny_recipe).model_validate(values)

    refused(r"stages\[1\].starts_from: 'instruct' is no earlier stage \(earlier: align\)", starts_from="instruct")
    refused(r"stages\[1\].sources: no source 'zz' in data.sources \(train\)", sources=["zz"])
    refused(r"stages\[1\].source_weights: no source 'zz' in data.sources \(train\)", source_weights={"zz": 2})
    refused(r"stages\[1\].augment: data.cache_states keeps the states of unchanged clips", augment={"gain_db": 3})
    values = tiny_recipe.model_dump(mode="json")
    values["data"]["cache_states"], values["stages"][1]["augment"] = False, {"gain_db": 3}
    assert type(tiny_recipe).model_validate(values).stages[1].augment.gain_db == 3


def test_only_stages_of_one_start_that_train_the_same_are_averaged(tiny_recipe):
    values = tiny_recipe.model_dump(mode="json")
    first, second = values["stages"]
    third = {**second, "name": "again", "starts_from": "align", "average_with": ["instruct"]}

    def refused(message, **changes):
        with pytest.raises(ValidationError, match=message):
            type(tiny_recipe).model_validate(values | {"stages": [first, second, {**third, **changes}]})

    accepted = type(tiny_recipe).model_validate(values | {"stages": [first, second, third]})
    assert accepted.stages[2].average_with == ("instruct",)
    refused(r"average_with: 'zz' is no earlier stage \(earlier: align, instruct\)", average_with=["zz"])
    refused("average_with: 'instruct' starts from align, this stage from instruct. Set starts_from", starts_from=None)
    refused("average_with: 'align' starts from the base, this stage from align", average_with=["align"])
    refused("both must train the same", learning_rates={"projector": 0.1} if second["learning_rates"]["lora"] else {})


def test_lineage_follows_starts_from(tiny_recipe):
    first = tiny_recipe.stages[0]
    names = [("a", None), ("b", None), ("c", "a"), ("d", None)]
    stages = tuple(first.model_copy(update={"name": name, "starts_from": parent}) for name, parent in names)
    recipe = tiny_recipe.model_copy(update={"stages": stages})
    assert [recipe.lineage(index) for index in range(4)] == [[], [0], [0], [0, 2]]


def test_the_stages_of_the_readme_are_accepted(tiny_recipe):
    readme = Path(__file__).resolve().parents[2] / "README.md"
    (block,) = re.findall(r"^```yaml\n(- name:.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    values = tiny_recipe.model_dump(mode="json")
    values["stages"] = yaml.safe_load(re.sub(r"(\d)e-", r"\1.0e-", block))
    values["data"]["sources"] |= {name: {"records": "x.jsonl"} for name in ("speech", "text_only")}
    recipe = type(tiny_recipe).model_validate(values)
    assert [stage.name for stage in recipe.stages] == ["align", "imitate", "instruct", "activate"]
