"""Rates, pauses and the breaker on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from data_builders.llm_writer import limits as limits_file
from data_builders.llm_writer.budget import Prices
from data_builders.llm_writer.limits import BURST_SECONDS, Breaker, Limits, Pause, RateLimit
from lalm.errors import DataError, EndpointError


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits_file.asyncio, "sleep", clock.sleep)
    return clock


@pytest.mark.parametrize("per_minute", [30, 600])
def test_no_minute_holds_more_than_its_share(per_minute, clock):
    rate = RateLimit(per_minute, clock)
    sent = []
    for _ in range(3 * per_minute):
        clock.now += rate.reserve(1)
        sent.append(clock.now)
    for start in sent:
        in_a_minute = sum(start <= moment < start + 60 for moment in sent)
        assert in_a_minute <= per_minute * (1 + BURST_SECONDS / 60) + 1
    assert sent[-1] - sent[0] == pytest.approx((3 * per_minute - 1) * 60 / per_minute - BURST_SECONDS, abs=2.1)


def test_tokens_that_were_not_used_are_given_back(clock):
    rate = RateLimit(600, clock)  # Ten a second.
    assert rate.reserve(110) == 0.0
    assert rate.reserve(1) == pytest.approx(10.0)
    rate.correct(-101)
    assert rate.reserve(1) == pytest.approx(0.0, abs=1e-6)
    rate.correct(100)
    assert rate.reserve(1) == pytest.approx(10.1)


def test_no_rate_waits_for_nothing(clock):
    rate = RateLimit(None, clock)
    rate.correct(10**9)
    assert rate.reserve(10**9) == 0.0


def test_the_longest_pause_holds(clock):
    pause = Pause(clock)
    assert pause.left() == 0
    pause.extend(5)
    pause.extend(2)
    clock.now += 1
    assert pause.left() == 4


def test_breaker_opens_probes_and_gives_up(clock):
    breaker = Breaker(faults=3, cool_down=4, openings=2, clock=clock)

    async def run() -> list[float]:
        opened = []
        for _ in range(3):
            await breaker.enter()
            breaker.failed("500: no")
        for _ in range(2):
            before = clock.now
            await breaker.enter()  # The probe.
            opened.append(clock.now - before)
            breaker.failed("500: still no")
        with pytest.raises(EndpointError, match=r"5 attempts in a row failed, the last with 500: still no"):
            await breaker.enter()
        return opened

    assert asyncio.run(run()) == [4, 8]


def test_a_good_reply_closes_the_breaker(clock):
    breaker = Breaker(faults=2, cool_down=4, openings=1, clock=clock)

    async def run() -> None:
        for _ in range(5):
            for _ in range(2):
                await breaker.enter()
                breaker.failed("dropped")
            await breaker.enter()
            breaker.succeeded()
        before = clock.now
        await breaker.enter()
        assert clock.now == before

    asyncio.run(run())


def test_only_one_probes_at_a_time():
    breaker = Breaker(faults=1, cool_down=0.0, openings=5)

    async def run() -> None:
        await breaker.enter()
        breaker.failed("down")
        await breaker.enter()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(breaker.enter(), 0.02)
        breaker.let_go()
        await breaker.enter()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"concurrency": 0}, "concurrency 0 is out of range"),
        ({"requests_per_minute": -1.0}, "requests_per_minute -1.0 is out of range"),
        ({"attempts": 0}, "attempts 0 is out of range"),
        ({"max_cost": 1.0}, "--max-cost needs prices"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Limits(**values)
    assert Limits(max_cost=1.0, prices=Prices(1.0, 0.0)).max_cost == 1.0
