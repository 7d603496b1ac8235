"""What holds a client back: requests and tokens per minute, a pause that the server asks for, a breaker.

The rate limit is its own because a request reserves the tokens it may need and gives back those it did not use, which
leaky-bucket packages do not offer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from data_builders.llm_writer.budget import Prices
from lalm.errors import DataError, EndpointError

LONGEST_ASKED_SECONDS = 900.0
"""A server that asks to wait longer than this is left for another run."""
BURST_SECONDS = 1.0
"""How much of a rate may be spent at once. Small, so that no minute holds much more than a minute's share."""


@dataclass(frozen=True)
class Limits:
    """What a run may do. None is no limit.

    Waits between the attempts at one request are exponential with full jitter, from `first_wait_seconds` on.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    request_seconds: float = 120.0
    attempts: int = 8
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 60.0
    prices: Prices = field(default_factory=Prices)
    max_cost: float | None = None
    max_requests: int | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "request_seconds", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise DataError(f"{name} {value} is out of range. Accepted: more than 0.")
        if self.max_cost is not None and not self.prices.cost_anything:
            raise DataError("--max-cost needs prices. Give --price-in and --price-out, per million tokens.")


class RateLimit:
    """So many units a minute, evenly; whoever asks first is served first, and a large amount only waits longer."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        self._rate = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._ready_at = clock() - BURST_SECONDS

    def reserve(self, amount: float) -> float:
        """Takes `amount` and returns the seconds to wait before using it."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        start = max(self._ready_at, now - BURST_SECONDS)
        self._ready_at = start + amount / self._rate
        return max(0.0, start - now)

    def correct(self, difference: float) -> None:
        """Adds what was used beyond the amount reserved (negative: gives back)."""
        if self._rate is not None:
            self._ready_at += difference / self._rate


class Pause:
    """The moment until which the server wants no request at all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._until = clock()

    def extend(self, seconds: float) -> None:
        """Nobody sends for so many seconds from now."""
        self._until = max(self._until, self._clock() + seconds)

    def left(self) -> float:
        """Seconds still to wait."""
        return max(0.0, self._until - self._clock())


@dataclass
class Breaker:
    """Stops sending when nothing comes back.

    `faults` failures in a row open it for `cool_down` seconds (doubled each time); then one request probes. When the
    probe of the last of `openings` fails, the run ends.
    """

    faults: int = 30
    cool_down: float = 5.0
    openings: int = 4
    clock: Callable[[], float] = time.monotonic
    _in_a_row: int = field(default=0, init=False)
    _opened: int = field(default=0, init=False)
    _open_until: float = field(default=0.0, init=False)
    _probing: bool = field(default=False, init=False)
    _given_up: str = field(default="", init=False)

    async def enter(self) -> None:
        """Waits while the breaker is open.

        Raises:
            EndpointError: when the endpoint has been given up.
        """
        while self._opened:
            if self._opened > self.openings:
                raise EndpointError(self._given_up)
            left = self._open_until - self.clock()
            if left <= 0 and not self._probing:
                self._probing = True
                return
            await asyncio.sleep(max(left, 0.01))

    def let_go(self) -> None:
        """Whoever entered sends nothing after all, so that another may probe."""
        self._probing = False

    def succeeded(self) -> None:
        """A reply came, whatever it said: the server is there."""
        self._in_a_row = self._opened = 0
        self._probing = False

    def failed(self, reason: str) -> None:
        """An attempt brought no answer from the server."""
        self._in_a_row += 1
        if self._probing or (not self._opened and self._in_a_row >= self.faults):
            self._probing = False
            self._opened += 1
            self._open_until = self.clock() + self.cool_down * 2 ** (self._opened - 1)
            self._given_up = (
                f"the endpoint is down: {self._in_a_row} attempts in a row failed, the last with {reason}. "
                "Everything that was answered is in the journal: start the server and run the same command again."
            )
