"""From text to a checked object: what is taken, what is repaired, what is refused with which words."""

from __future__ import annotations

import pytest

from data_builders.llm_writer.endpoint import Reply
from data_builders.llm_writer.recipes.base import Pairs
from data_builders.llm_writer.recipes.music_qa import NineAnswers
from data_builders.llm_writer.recipes.one_sound import OneQuestion
from data_builders.llm_writer.structured import json_schema, read_reply

GOOD = '{"pairs": [{"question": "Q {1}?", "answer": "A \\"b\\".", "evidence": ["e"]}]}'


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (GOOD, False),
        (f"  {GOOD}\n", False),
        (f"<think>Is it {{1}}?</think>{GOOD}", False),
        (f"Here you are:\n```json\n{GOOD}\n```\nGood luck!", False),
        (f"Sure! {GOOD}", False),
        (f"Sure! {GOOD} I hope that helps.", True),
        (GOOD.replace("]}]}", "],},]}"), True),
        (GOOD.replace('{"pairs"', "{pairs"), True),
    ],
)
def test_whole_replies_are_read(text, repaired):
    parsed = read_reply(Reply(text, 1, 1), Pairs)
    assert parsed.value is not None, parsed.problem
    [pair] = parsed.value.pairs
    assert (pair.question, pair.answer, pair.evidence) == ("Q {1}?", 'A "b".', ["e"])
    assert parsed.repaired is repaired


@pytest.mark.parametrize(
    ("text", "finish", "problem"),
    [
        (GOOD, "length", "the reply was cut off for its length"),
        ("I would rather not.", "stop", "the reply holds no JSON object"),
        ("", "stop", "the reply holds no JSON object"),
        (GOOD[: len(GOOD) // 2], "stop", "the JSON of the reply does not end"),
        (GOOD[:-1], "stop", "the JSON of the reply does not end"),
        ('{"pairs": []}', "stop", "the JSON has another form"),
        ('{"pairs": [{"question": "Q?"}]}', "stop", "the JSON has another form"),
        ('["a"]', "stop", "the JSON has another form"),
    ],
)
def test_half_replies_are_never_made_whole(text, finish, problem):
    parsed = read_reply(Reply(text, 1, 1, finish), Pairs)
    assert parsed.value is None
    assert parsed.problem.kind.startswith(problem)


def test_the_problem_names_the_place():
    parsed = read_reply(Reply('{"pairs": [{"question": "Q?"}]}', 1, 1), Pairs)
    assert "pairs.0.answer: Field required" in parsed.problem.detail


def test_schema_is_closed_and_bounded():
    schema = json_schema(NineAnswers, 5)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["fixed", "free"]
    assert schema["properties"]["free"]["maxItems"] == 5
    pair = schema["$defs"]["Pair"]
    assert pair["required"] == ["question", "answer", "evidence"]
    assert pair["additionalProperties"] is False
    assert "maxItems" not in pair["properties"]["evidence"]
    assert "maxItems" not in str(json_schema(NineAnswers))


def test_a_key_of_the_schema_can_be_narrowed():
    schema = json_schema(OneQuestion, narrowed={"about": {"enum": ["bell", "dog"]}})
    assert schema["properties"]["about"] == {"type": "string", "enum": ["bell", "dog"]}
    assert list(schema["properties"]) == ["about", "question", "answer"]
    assert "enum" not in str(json_schema(OneQuestion))
