"""What a run would ask, cost and take, without asking: the first request of every clip is rendered and counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data_builders.llm_writer.endpoint import LlmRequest
from data_builders.llm_writer.limits import Limits


@dataclass(frozen=True)
class Estimate:
    """Tokens and cost as they are likely, and the cost that no first round can pass. Seconds on the limits given."""

    requests: int
    prompt_tokens: int
    reply_tokens: int
    cost: float
    most_cost: float
    seconds: float
    bound_by: str
    """What the seconds come from: the rate in requests, in tokens, or the concurrency."""


def estimate(
    requests: Iterable[LlmRequest], limits: Limits, *, likely_reply_tokens: int, seconds_per_reply: float
) -> Estimate:
    """Second asks and later stages are not in it; `seconds_per_reply` is the caller's assumption."""
    requests = list(requests)
    prompt = sum(request.likely_prompt_tokens() for request in requests)
    reply = sum(min(likely_reply_tokens, request.sampling.max_tokens) for request in requests)
    times = {"concurrency": len(requests) * seconds_per_reply / limits.concurrency}
    if limits.requests_per_minute:
        times["requests per minute"] = 60 * len(requests) / limits.requests_per_minute
    if limits.tokens_per_minute:
        times["tokens per minute"] = 60 * (prompt + reply) / limits.tokens_per_minute
    bound_by = max(times, key=lambda name: times[name])
    return Estimate(
        requests=len(requests),
        prompt_tokens=prompt,
        reply_tokens=reply,
        cost=limits.prices.of(prompt, reply),
        most_cost=sum(map(limits.prices.most, requests)),
        seconds=times[bound_by],
        bound_by=bound_by,
    )
