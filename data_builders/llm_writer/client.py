"""One request in, one reply out: from the journal, or from the endpoint with every limit kept and every fault met."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from data_builders.llm_writer.budget import Budget
from data_builders.llm_writer.endpoint import Endpoint, EndpointFault, LlmRequest, NotYet, Reply, RequestRefused
from data_builders.llm_writer.journal import Journal
from data_builders.llm_writer.limits import LONGEST_ASKED_SECONDS, Breaker, Limits, Pause, RateLimit
from lalm.errors import EndpointError, MissingPackageError

REPLY = "reply"
REFUSED = "refused"


@dataclass
class BusyMeter:
    """How much of the concurrency asked for was in use, while there was work for all of it."""

    slots: int
    in_flight: int = 0
    most_in_flight: int = 0
    _area: float = 0.0
    _began: float | None = None
    _at: float = 0.0
    _ended: float | None = None

    def change(self, by: int) -> None:
        """One request more or fewer is at the server."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._at = now
        if self._ended is None:
            self._area += self.in_flight * (now - self._at)
            self._at = now
        self.in_flight += by
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def end(self) -> None:
        """From now on there is less work than slots."""
        if self._ended is None and self._began is not None:
            self.change(0)
            self._ended = time.monotonic()

    def share(self) -> float | None:
        """0 to 1; None where nothing was sent."""
        self.end()
        if self._began is None or self._ended is None or self._ended <= self._began:
            return None
        return self._area / (self.slots * (self._ended - self._began))


@dataclass
class Client:
    """Asks an endpoint. A reply is in the journal before it is handed on; equal requests share one attempt."""

    endpoint: Endpoint
    journal: Journal
    limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)
    calls_helpers: bool = True
    """False in a dry run: nobody is asked to hear or to speak either."""
    report: Callable[[str], object] = lambda line: None
    """Is told of the first attempt that fails: many more may follow before an endpoint is given up."""

    def __post_init__(self) -> None:
        limits = self.limits
        self.budget = Budget(
            limits.prices, max_cost=limits.max_cost, max_requests=limits.max_requests, spent=self.journal.cost
        )
        self.meter = BusyMeter(limits.concurrency)
        self.faults: Counter[str] = Counter()
        self.from_journal = 0
        self.stopped = ""
        """Why nothing more is asked; empty while it is."""
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._requests = RateLimit(limits.requests_per_minute)
        self._tokens = RateLimit(limits.tokens_per_minute)
        self._pause = Pause()
        self._under_way: dict[str, asyncio.Task[Reply]] = {}
        self._retrying = _retrying(limits)

    async def answer(self, request: LlmRequest) -> Reply:
        """The reply to a request.

        Raises:
            NotYet: if none is in the journal and none may be asked for, or every attempt failed.
            RequestRefused: if the server does not take this request.
        """
        key = request.key()
        kept = self._kept(key)
        if kept is not None:
            self.from_journal += 1
            return kept
        if key not in self._under_way:
            task = asyncio.ensure_future(self._ask(request, key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(self._under_way[key])

    def _kept(self, key: str) -> Reply | None:
        refused = self.journal.get(REFUSED, key)
        if refused is not None:
            raise RequestRefused(refused)
        value: dict[str, Any] | None = self.journal.get(REPLY, key)
        return None if value is None else Reply(**value)

    async def _ask(self, request: LlmRequest, key: str) -> Reply:
        try:
            return await self._retrying(self._in_a_slot, request, key)
        except EndpointFault as fault:
            raise NotYet(f"{self.limits.attempts} attempts failed, the last with {fault}") from None
        except EndpointError as error:
            self.stopped = self.stopped or str(error)
            raise NotYet(self.stopped) from None

    async def _in_a_slot(self, request: LlmRequest, key: str) -> Reply:
        async with self._slots:
            return await self._attempt(request, key)

    async def _attempt(self, request: LlmRequest, key: str) -> Reply:
        await self._wait_for_leave(request)
        try:
            reserved = await self.budget.reserve(request)
        except NotYet:
            self.breaker.let_go()
            raise
        cost = 0.0
        try:
            self.meter.change(+1)
            try:
                async with asyncio.timeout(self.limits.request_seconds):
                    reply = await self.endpoint.ask(request)
            except TimeoutError:
                raise EndpointFault(
                    "time-out", f"no reply in {self.limits.request_seconds:g} s", maybe_paid=True
                ) from None
            finally:
                self.meter.change(-1)
            cost = self.budget.prices.of_reply(reply)
            self.journal.put(REPLY, key, asdict(reply), cost=cost)
            self.breaker.succeeded()
            used = reply.prompt_tokens + reply.completion_tokens
            self._tokens.correct(used - self._likely_tokens(request))
            return reply
        except EndpointFault as fault:
            cost = self._count(fault, key, reserved)
            raise
        except RequestRefused as refusal:
            self.breaker.succeeded()
            self.journal.put(REFUSED, key, str(refusal))
            raise
        finally:
            await self.budget.settle(reserved, cost)

    async def _wait_for_leave(self, request: LlmRequest) -> None:
        """Returns when an attempt may be made. A slot is held meanwhile, so that few set out when a pause ends."""
        if self.stopped:
            raise NotYet(self.stopped)
        await self.breaker.enter()
        wait = max(self._requests.reserve(1), self._tokens.reserve(self._likely_tokens(request)))
        await asyncio.sleep(wait)
        while (left := self._pause.left()) > 0:
            await asyncio.sleep(left)

    def _likely_tokens(self, request: LlmRequest) -> int:
        return request.likely_prompt_tokens() + request.sampling.max_tokens

    def _count(self, fault: EndpointFault, key: str, reserved: float) -> float:
        """Notes a fault and returns what it may have cost."""
        if not self.faults:
            self.report(f"An attempt failed: {fault}. Up to {self.limits.attempts} are made for each request.")
        self.faults[fault.kind] += 1
        if fault.retry_after is not None:
            if fault.retry_after > LONGEST_ASKED_SECONDS:
                self.stopped = f"the endpoint asks to wait {fault.retry_after:g} s ({fault}). Run it again later."
            else:
                self._pause.extend(fault.retry_after)
        if fault.kind == "429":
            self.breaker.succeeded()
        else:
            self.breaker.failed(str(fault))
        if fault.maybe_paid:
            self.journal.note_lost(key, fault.kind, cost=reserved)
            return reserved
        return 0.0


def _retrying(limits: Limits) -> Any:
    """Calls again after a fault that may pass. A server that names a time has it kept by the pause, for everybody."""
    try:
        import tenacity
    except ImportError:
        raise MissingPackageError("tenacity", "asking a server again", "data") from None
    jittered = tenacity.wait_random_exponential(multiplier=limits.first_wait_seconds, max=limits.longest_wait_seconds)

    def wait(state: Any) -> float:
        return 0.0 if state.outcome.exception().retry_after is not None else jittered(state)

    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(limits.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception_type(EndpointFault),
        reraise=True,
    )
