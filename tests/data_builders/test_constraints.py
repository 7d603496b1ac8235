"""Constraints on answers: the answers obey them, and the checker finds replies that do not."""

import pytest

from data_builders.clips import seeded
from data_builders.questions import IllPosed, Question, Subject
from data_builders.questions.constraints import KINDS, follows, instruction, written
from data_builders.scenes import Event, Scene

LABELS = ["bell", "kick drum", "organ"]


def subject(*labels):
    return Subject(
        "s", scene=Scene(tuple(Event(label, "c", "g", 2.0 * n, 1, -20, -10) for n, label in enumerate(labels)))
    )


def test_every_answer_obeys_its_own_constraint_and_every_kind_is_drawn():
    seen = set()
    for draw in range(200):
        question = instruction(subject(*LABELS), None, seeded(draw))
        assert isinstance(question, Question)
        seen.add(question.wording)
        assert follows(question.meta["constraint"], question.answer)
    assert seen == set(KINDS)


def test_a_name_of_two_words_is_not_asked_in_one():
    found = [instruction(subject("kick drum", "bell"), None, seeded(draw)) for draw in range(100)]
    assert any(isinstance(question, IllPosed) for question in found)
    assert not any(isinstance(question, Question) and question.wording == "one_word" for question in found)


@pytest.mark.parametrize(
    ("constraint", "reply"),
    [
        ({"kind": "json_list"}, "bell, organ"),
        ({"kind": "json_list"}, '{"a": 1}'),
        ({"kind": "json_list"}, "[1, 2]"),
        ({"kind": "json_count"}, '{"sounds": ["bell"], "count": 2}'),
        ({"kind": "json_count"}, '["bell"]'),
        ({"kind": "bullets", "number": 3}, "- bell\n- organ"),
        ({"kind": "bullets", "number": 2}, "bell\norgan"),
        ({"kind": "numbered"}, "1. bell\n3. organ"),
        ({"kind": "numbered"}, ""),
        ({"kind": "one_word"}, "a bell"),
        ({"kind": "capitals"}, "BELL, Organ"),
        ({"kind": "capitals"}, "123"),
        ({"kind": "at_most_words", "number": 2}, "bell kick drum"),
        ({"kind": "at_most_words", "number": 2}, ""),
    ],
)
def test_replies_that_break_a_constraint(constraint, reply):
    assert not follows(constraint, reply)


def test_the_numbered_list_of_any_reply_counts_up():
    assert follows({"kind": "numbered"}, written("numbered", LABELS))
    assert follows({"kind": "numbered"}, "1) bell\n2) a dog")


def test_an_unknown_constraint_is_named():
    with pytest.raises(ValueError, match=r"'haiku' is not known\. Accepted: json_list"):
        follows({"kind": "haiku"}, "x")
