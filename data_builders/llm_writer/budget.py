"""How much may be spent. Every attempt reserves the most it could cost, so that a ceiling is never passed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from data_builders.llm_writer.endpoint import LlmRequest, NotYet, Reply


@dataclass(frozen=True)
class Prices:
    """Cost of a million tokens, in any one currency. A local model costs nothing."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0

    @property
    def cost_anything(self) -> bool:
        """Whether any token has a price."""
        return bool(self.per_million_in or self.per_million_out)

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Cost of so many tokens."""
        return (prompt_tokens * self.per_million_in + completion_tokens * self.per_million_out) / 1e6

    def most(self, request: LlmRequest) -> float:
        """More than the request can cost."""
        return self.of(request.most_prompt_tokens(), request.sampling.max_tokens)

    def of_reply(self, reply: Reply) -> float:
        """What a reply cost by the tokens that the server counted."""
        return self.of(reply.prompt_tokens, reply.completion_tokens)


class Budget:
    """Ceilings of a run.

    `max_cost` counts everything that the journal has paid for, earlier runs included; `max_requests` counts the
    attempts of this run. The first attempt that does not fit ends the spending for all.
    """

    def __init__(
        self, prices: Prices, *, max_cost: float | None = None, max_requests: int | None = None, spent: float = 0.0
    ):
        self.prices = prices
        self.spent = spent
        self.requests = 0
        self.ended = ""
        """Why nothing more may be spent; empty while it may."""
        self._max_cost = max_cost
        self._max_requests = max_requests
        self._reserved = 0.0
        self._settled = asyncio.Condition()

    async def reserve(self, request: LlmRequest) -> float:
        """Sets aside the most that one attempt can cost; waits where attempts under way decide whether it fits.

        Raises:
            NotYet: when it does not fit.
        """
        most = self.prices.most(request)
        async with self._settled:
            while not self.ended:
                if self._max_requests is not None and self.requests >= self._max_requests:
                    self.ended = f"--max-requests {self._max_requests} is reached"
                elif self._max_cost is not None and self.spent + self._reserved + most > self._max_cost:
                    if self._reserved:
                        await self._settled.wait()
                        continue
                    self.ended = f"--max-cost {self._max_cost:g} is reached: {self.spent:.6g} is spent"
                else:
                    self.requests += 1
                    self._reserved += most
                    return most
            self._settled.notify_all()
        raise NotYet(self.ended)

    async def settle(self, reserved: float, cost: float) -> None:
        """Puts the real cost of an attempt in place of what was reserved for it."""
        async with self._settled:
            self._reserved = max(0.0, self._reserved - reserved)
            if self._reserved < 1e-12:
                self._reserved = 0.0  # Sums of floats leave dust, which must not read as an attempt under way.
            self.spent += cost
            self._settled.notify_all()
