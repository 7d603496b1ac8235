"""What holds a client back: requests and tokens per minute, a pause that the server asks for, a breaker, back-off."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lalm.errors import EndpointError

BURST_SECONDS = 1.0
"""How much of a rate may be spent at once. Small, so that no minute holds much more than a minute's share."""


class RateLimit:
    """So many units a minute, evenly; whoever asks first is served first, and a large amount only waits longer."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        if per_minute is not None and per_minute <= 0:
            raise ValueError(f"per_minute must be positive, got {per_minute}")
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


@dataclass(frozen=True)
class BackOff:
    """Waits between attempts at one request: exponential, with full jitter so that clients do not return together."""

    attempts: int = 8
    first_seconds: float = 0.5
    longest_seconds: float = 60.0
    longest_asked_seconds: float = 900.0
    """A server that asks for more than this is not waited for."""

    def wait(self, attempt: int, rng: random.Random) -> float:
        """Seconds after attempt number `attempt`, counted from 1."""
        return rng.uniform(0, min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1)))


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
