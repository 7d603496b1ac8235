"""An OpenAI-compatible server of a test's own, in a thread: answers from what it is told, and fails when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

FAULTS = (
    "429", "500", "time-out", "dropped", "truncated", "not JSON", "not a reply", "cut content", "prose", "nearly JSON"
)  # fmt: skip
"""Those after "not a reply" are faults of the model's text: the server itself answers 200 with a whole body."""
CONTENT_FAULTS = FAULTS[7:]
PROMPT_TOKENS, REPLY_TOKENS = 100, 50

Answer = Callable[[dict[str, Any]], str]
Plan = Callable[[int, dict[str, Any]], str | None]


class StubEndpoint:
    """Use as a context manager; `url` is its base.

    Args:
        answer: the reply's text for a request body.
        plan: the fault for request number n (from 0), None for none. A fault of the text only befalls first asks.
        delay_seconds: how long a good reply takes, on average.
        hang_seconds: how long a "time-out" keeps the connection open.
    """

    def __init__(
        self,
        answer: Answer,
        plan: Plan = lambda number, body: None,
        *,
        delay_seconds: float = 0.0,
        hang_seconds: float = 5.0,
        retry_after: str = "0.02",
        knows_schemas: bool = True,
    ):
        self.answer, self.plan = answer, plan
        self.delay_seconds, self.hang_seconds = delay_seconds, hang_seconds
        self.retry_after, self.knows_schemas = retry_after, knows_schemas
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """The idempotency key of every request, in the order of arrival."""
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.authorization: set[str | None] = set()
        self._rng = random.Random(0)
        self.in_flight = self.most_in_flight = 0
        self.in_flight_at_arrival: list[int] = []

    def __enter__(self) -> StubEndpoint:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
            started.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        started.wait()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *error: object) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one_request(reader, writer):
                    pass
        finally:
            writer.close()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        number, key = len(self.bodies), headers.get("idempotency-key", "")
        self.bodies.append(body)
        self.keys.append(key)
        self.authorization.add(headers.get("authorization"))
        fault = self.plan(number, body)
        if fault in CONTENT_FAULTS and len(body["messages"]) > 2:
            fault = None
        if fault:
            self.faults[fault] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.in_flight_at_arrival.append(self.in_flight)
        try:
            return await self._reply(writer, body, key, fault)
        finally:
            self.in_flight -= 1

    async def _reply(self, writer: asyncio.StreamWriter, body: dict[str, Any], key: str, fault: str | None) -> bool:
        if not self.knows_schemas and "response_format" in body:
            return await self._send(writer, 400, '{"error": "response_format is not supported"}')
        if fault == "time-out":
            await asyncio.sleep(self.hang_seconds)
            return False
        if fault == "dropped":
            writer.transport.abort()
            return False
        if fault is not None and fault.isdigit():
            more = f"Retry-After: {self.retry_after}\r\n" if fault == "429" else ""
            return await self._send(writer, int(fault), '{"error": "injected"}', more)
        if fault == "not JSON":
            return await self._send(writer, 200, "<html>Bad gateway</html>")
        if fault == "not a reply":
            return await self._send(writer, 200, '{"choices": []}')
        completion = await self.complete(body)
        message = completion["choices"][0]["message"]
        if fault == "cut content":
            message["content"] = message["content"][: len(message["content"]) // 2]
        elif fault == "prose":
            message["content"] = "Certainly! I will think about it."
        elif fault == "nearly JSON":
            message["content"] = f"Here it is:\n```json\n{message['content'][:-1]},}}\n```"
        whole = json.dumps(completion)
        if fault == "truncated":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(whole.encode())}\r\n\r\n".encode())
            writer.write(whole.encode()[: len(whole) // 2])
            await writer.drain()
            return False
        self.answered[key] += 1
        return await self._send(writer, 200, whole)

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a good reply."""
        await asyncio.sleep(self.delay_seconds * self._rng.uniform(0.5, 1.5))
        message = {"role": "assistant", "content": self.answer(body)}
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": REPLY_TOKENS}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    async def _send(self, writer: asyncio.StreamWriter, status: int, text: str, more: str = "") -> bool:
        content = text.encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{more}\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        return True


def so_many_faults(count: int, *, share: float = 0.6, seed: int = 0, kinds: tuple[str, ...] = FAULTS) -> Plan:
    """A plan that injects exactly `count` faults, every kind in turn, into a random `share` of the requests."""
    rng = random.Random(seed)
    injected = 0

    def plan(number: int, body: dict[str, Any]) -> str | None:
        nonlocal injected
        if injected >= count or rng.random() > share:
            return None
        kind = kinds[injected % len(kinds)]
        if kind in CONTENT_FAULTS and len(body["messages"]) > 2:
            return None
        injected += 1
        return kind

    return plan
