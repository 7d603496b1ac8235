"""Prompts are versioned files that render with what recipes give them, and refuse a slot that is missing."""

from __future__ import annotations

import pytest
from invented_facts import invented

from data_builders.llm_writer.recipes import RECIPES
from data_builders.prompts import list_prompts, load_prompt
from lalm.errors import DataError


def test_every_recipe_has_its_prompt():
    known = list_prompts()
    assert {recipe.prompt for recipe in RECIPES.values()} | {"again"} == set(known)
    for name, versions in known.items():
        assert versions[-1] == len(versions)
        assert load_prompt(name).title == f"{name}@{versions[-1]}"


def test_open_aqa_shows_the_facts_and_nothing_else_of_the_clip():
    clip = invented(3, provenance={"file": "secret.wav"})
    (system, instructions), (user, text) = load_prompt("open_aqa").messages(facts=clip, count=2)
    assert (system, user) == ("system", "user")
    assert "Invent no sound" in instructions
    assert "- length: 6.0 seconds" in text
    assert "- event: rain, from 0.5 s to 1.5 s" in text
    assert "Write 2 different questions" in text
    assert "secret" not in text
    assert "clip0003" not in text
    assert "\n\n\n" not in text


def test_facts_are_data_and_no_template():
    clip = invented(0, captions=("{{ facts.id }} {% include 'x' %}",))
    assert (
        "- description: {{ facts.id }} {% include 'x' %}" in load_prompt("open_aqa").messages(facts=clip, count=1)[1][1]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_prompt("sonnet"), "prompt 'sonnet' is not known. There are: again, chain"),
        (lambda: load_prompt("chain", 99), r"prompt 'chain' has no version 99. There are: \[1\]"),
        (lambda: load_prompt("open_aqa").messages(facts=invented(0)), "open_aqa.v1.jinja: 'count' is undefined"),
    ],
)
def test_what_is_missing_is_named(call, message):
    with pytest.raises(DataError, match=message):
        call()
