"""What a written exchange is turned away for, each with its kind and the thing at fault."""

from __future__ import annotations

import pytest
from invented_facts import invented

from data_builders.llm_writer.checks import exchange_problem, unsupported
from data_builders.llm_writer.facts import Facts, KnownQuestion

CLIP = invented(0)  # "A dog sounds before a bell, take 0."; dog 0.5-1.5 s, bell 2-4 s, of 6 s.
GOOD_QUESTION = "What is heard first here?"


@pytest.mark.parametrize(
    "answer", ["A dog, barking twice.", "The bell rings from 2 s to 4 s.", "There is no cat, only a dog."]
)
def test_good_exchanges_pass(answer):
    assert exchange_problem(GOOD_QUESTION, answer, CLIP) is None


@pytest.mark.parametrize(
    ("question", "answer", "kind", "detail"),
    [
        ("Why?", "A dog.", "the question is too short", "Why?"),
        (GOOD_QUESTION, " ... ", "the answer is empty", ""),
        ("Is the dog first here?", "The dog is first here.", "the answer repeats the question", "The dog"),
        (GOOD_QUESTION, "I'm sorry, I cannot tell.", "refuses to answer", "i'm sorry"),
        (GOOD_QUESTION, "As an AI, I hear a dog.", "shows what it was written from", "as an ai"),
        (GOOD_QUESTION, "A dog, according to the metadata.", "shows what it was written from", "metadata"),
        ("What does the metadata say here?", "A dog.", "shows what it was written from", "the metadata"),
        (GOOD_QUESTION, "[Question] A dog.", "holds a marker of the prompt", "[question]"),
        (GOOD_QUESTION, "A dog and a siren.", "names a sound that the metadata does not", "siren"),
        (GOOD_QUESTION, "A dog, at 7.5 seconds.", "names a time after the end of the clip", "7.5 s of 6 s"),
    ],
)
def test_bad_exchanges_are_named(question, answer, kind, detail):
    problem = exchange_problem(question, answer, CLIP)
    assert problem is not None
    assert problem.kind == kind
    assert detail in problem.detail
    assert str(problem.at("pair 2")).startswith(f"pair 2: {kind}")


def test_a_question_that_follows_may_be_short():
    assert exchange_problem("Why?", "A dog barks at the bell.", CLIP, follows=True) is None
    assert exchange_problem("?", "A dog barks at the bell.", CLIP, follows=True).kind == "the question is too short"


@pytest.mark.parametrize(
    "evidence", [["dog"], ["A DOG sounds, before"], ["event: bell, from 2.0 s to 4.0 s"], ["", "bell"]]
)
def test_evidence_in_the_facts_counts(evidence):
    assert unsupported(evidence, CLIP) is None


@pytest.mark.parametrize(
    ("evidence", "kind"),
    [
        ([], "names no evidence"),
        (["!"], "names no evidence"),
        (["dog", "a cat"], "its evidence is not known of the clip"),
        (["bell dog"], "its evidence is not known of the clip"),
        (["og"], "its evidence is not known of the clip"),
    ],
)
def test_evidence_that_is_not_known_is_named(evidence, kind):
    assert unsupported(evidence, CLIP).kind == kind


def test_known_answers_are_facts_unless_they_are_hidden():
    asked = KnownQuestion(question="Which animal is heard?", answer="sheep")
    clip = Facts(id="a", audio=("a.wav",), questions=(asked,))
    assert unsupported(["sheep"], clip) is None
    assert unsupported(["sheep"], clip, questions=False).kind == "its evidence is not known of the clip"
    assert exchange_problem(GOOD_QUESTION, "A lamb.", clip) is None
    assert exchange_problem(GOOD_QUESTION, "A rooster.", clip).detail == "rooster"
