"""Reserving before spending: a ceiling is never passed, whatever order attempts end in."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.llm_writer.budget import Budget, Prices
from data_builders.llm_writer.endpoint import LlmRequest, NotYet, Reply, Sampling

PRICES = Prices(per_million_in=1e6, per_million_out=2e6)  # One a prompt token, two a reply token.


def request(text: str = "x" * 84, tokens: int = 50) -> LlmRequest:
    return LlmRequest("m", "p@1", "s", (("user", text),), Sampling(max_tokens=tokens))


def test_the_most_is_a_bound():
    assert PRICES.most(request()) == 84 + 16 + 100
    assert PRICES.of_reply(Reply("", 3, 4)) == 3 + 8
    assert request("é").most_prompt_tokens() == 2 + 16


@settings(max_examples=50, deadline=None)
@given(
    ceiling=st.floats(0, 3000),
    attempts=st.lists(st.tuples(st.floats(0, 200), st.integers(0, 3)), min_size=1, max_size=30),
)
def test_never_passed_and_never_stuck(ceiling, attempts):
    """Attempts that cost something and end after some turns of the loop. (All is drawn ahead: hypothesis stops an
    example where it draws, and an attempt that is stopped never settles.)"""

    async def run() -> float:
        budget = Budget(PRICES, max_cost=ceiling)

        async def attempt(cost: float, turns: int) -> None:
            reserved = await budget.reserve(request())
            for _ in range(turns):
                await asyncio.sleep(0)
            await budget.settle(reserved, cost)
            assert budget.spent <= ceiling + 1e-6

        tasks = [asyncio.ensure_future(attempt(*each)) for each in attempts]
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        stopped = [error for error in done if error is not None]
        assert all(isinstance(error, NotYet) for error in stopped)
        if stopped:
            assert budget.spent + 200 > ceiling
            assert budget.ended.startswith(f"--max-cost {ceiling:g} is reached")
        return budget.spent

    asyncio.run(run())


def test_requests_of_the_run_are_counted_one_by_one():
    async def run() -> None:
        budget = Budget(PRICES, max_requests=2)
        assert [await budget.reserve(request()) for _ in range(2)] == [200, 200]
        with pytest.raises(NotYet, match="--max-requests 2 is reached"):
            await budget.reserve(request())
        assert budget.requests == 2

    asyncio.run(run())


def test_what_was_spent_before_counts():
    async def run() -> None:
        with pytest.raises(NotYet, match="--max-cost 1000 is reached: 900 is spent"):
            await Budget(PRICES, max_cost=1000, spent=900).reserve(request())

    asyncio.run(run())
