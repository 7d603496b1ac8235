"""A judge behind an endpoint: records are asked about ahead of the pass, many at once; the pass reads the replies.

    judge = ServedJudge(client)
    waiting, why = await judge.ask_ahead(records)
    run_filters(source, [JudgePass(judge)], funnel)

Replies stand in the journal, so a judge that was stopped goes on, and pays nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from data_builders.filters.judging import CRITERIA, TRIES, judge_prompts, read_verdict
from data_builders.llm_writer.client import REPLY, Client
from data_builders.llm_writer.endpoint import LlmRequest, NotYet, Reply, RequestRefused, Sampling
from lalm.data.records import Record
from lalm.errors import DataError

PROMPT = "judge@1"
SAMPLING = Sampling(max_tokens=200, temperature=0.0)
SCHEMA = {
    "type": "object",
    "properties": {key: {"type": "boolean"} for key in CRITERIA},
    "required": list(CRITERIA),
    "additionalProperties": False,
}
MORE_RECORDS_THAN_SLOTS = 4


class ServedJudge:
    """Asks ahead, then answers from the journal. A request that the server refuses counts as an unreadable reply."""

    def __init__(self, client: Client, *, seed: int = 0):
        self.client, self.seed = client, seed

    def __call__(self, prompt: str, asked_before: int) -> str:
        """The reply to a prompt that was asked ahead; "" where the server refused it."""
        kept = self.client.journal.get(REPLY, self._request(prompt, asked_before).key())
        return "" if kept is None else Reply(**kept).text

    async def ask_ahead(
        self, records: Iterable[Record], progress: Callable[[int], None] = lambda done: None
    ) -> tuple[int, str]:
        """Gets every reply that the pass will read; returns how many records wait for one, and why the first does.

        Raises:
            DataError: at a record that the judging model wrote itself.
        """
        waiting, why, done = 0, "", 0
        under_way: set[asyncio.Task[str]] = set()
        source = iter(records)
        most = self.client.limits.concurrency * MORE_RECORDS_THAN_SLOTS
        try:
            while True:
                while len(under_way) < most and (record := next(source, None)) is not None:
                    under_way.add(asyncio.ensure_future(self._ask_about(record)))
                if not under_way:
                    return waiting, why
                finished, under_way = await asyncio.wait(under_way, return_when="FIRST_COMPLETED")
                for task in finished:
                    reason = task.result()
                    waiting, why, done = waiting + bool(reason), why or reason, done + 1
                progress(done)
        finally:
            for task in under_way:
                task.cancel()

    async def _ask_about(self, record: Record) -> str:
        """Why a record waits; "" where it does not."""
        model = self.client.endpoint.model
        if (record.provenance.get("written_by") or {}).get("model") == model:
            raise DataError(f"record '{record.id}': was written by {model}, which cannot judge it. Name another model.")
        for prompt in judge_prompts(record):
            for number in range(TRIES):
                try:
                    reply = await self.client.answer(self._request(prompt, number))
                except RequestRefused:
                    continue
                except NotYet as waits:
                    return str(waits) or "no reply"
                if read_verdict(reply.text) is not None:
                    break
        return ""

    def _request(self, prompt: str, asked_before: int) -> LlmRequest:
        return LlmRequest(
            model=self.client.endpoint.model,
            prompt=PROMPT,
            subject=hashlib.sha256(prompt.encode()).hexdigest(),
            messages=(("user", prompt),),
            # The likeliest reply first; where it cannot be read, another one.
            sampling=replace(SAMPLING, seed=self.seed + asked_before, temperature=0.7 if asked_before else 0.0),
            schema=SCHEMA,
        )
