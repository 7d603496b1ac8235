"""Claims about the order of sounds, against when they begin."""

from __future__ import annotations

import pytest

from data_builders.llm_writer.facts import TimedEvent
from data_builders.llm_writer.order import order_problem

DOG, BELL, AGAIN = (
    TimedEvent(label=label, onset=onset) for label, onset in (("dog", 0.5), ("Bell", 2.0), ("dog", 4.0))
)


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("The bell rings after the dog barks.", ""),
        ("The dog barks, then a bell rings.", ""),
        ("The dogs before the loud bell.", ""),
        ("The dog, and later the bell; afterwards somebody leaves.", ""),
        ("A bell before the dog.", "bell before the dog"),
        ("The bell is followed by a dog.", "bell is followed by a dog"),
        ("Why might the dog bark after the bell?", "dog bark after the bell"),
        ("The dog follows the bell.", "dog follows the bell"),
    ],
)
def test_an_order_that_no_two_sounds_have_is_found(text, claim):
    problem = order_problem(text, [DOG, BELL])
    assert (problem.detail if problem else "") == claim
    assert order_problem(text, [DOG, BELL, AGAIN]) is None  # The dog is on both sides of the bell.
    assert order_problem(text, []) is None
