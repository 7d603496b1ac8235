"""What a server's answers mean: a reply, a fault that may pass, a refusal, or the end of the run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest

from data_builders.llm_writer.endpoint import EndpointFault, LlmRequest, RequestRefused
from data_builders.llm_writer.openai_http import OpenAiServer, reply_of_body, retry_after_seconds
from lalm.errors import EndpointError

REQUEST = LlmRequest("m", "open_aqa@1", "s", (("user", "Hi"),), schema={"type": "object"})
BODY = {
    "choices": [{"message": {"content": "Ho"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}


def ask(handler, **options):
    """One ask of a server whose transport is a function."""

    async def run():
        server = OpenAiServer("http://host/v1/", "m", **options)
        headers = server._client.headers
        server._client = httpx.AsyncClient(transport=httpx.MockTransport(handler), headers=headers)
        try:
            return await server.ask(REQUEST)
        finally:
            await server.close()

    return asyncio.run(run())


def test_a_request_is_what_the_interface_says():
    seen = []

    def handler(request):
        seen.append(request)
        return httpx.Response(200, json=BODY)

    reply = ask(handler, api_key="k3y")
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish) == ("Ho", 3, 4, "length")
    [request] = seen
    assert str(request.url) == "http://host/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["idempotency-key"] == REQUEST.key()
    sent = __import__("json").loads(request.content)
    assert sent["messages"] == [{"role": "user", "content": "Hi"}]
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("response", "error", "message", "paid"),
    [
        (httpx.Response(429, headers={"retry-after": "7"}), EndpointFault, "429", False),
        (httpx.Response(500, text="oops"), EndpointFault, "500: oops", False),
        (httpx.Response(503), EndpointFault, "503", False),
        (httpx.Response(200, text="<html>"), EndpointFault, "not JSON: <html>", True),
        (httpx.Response(200, json={"choices": []}), EndpointFault, "not a reply", True),
        (httpx.Response(400, text="too long"), RequestRefused, r"refuses the request \(400 too long\)", None),
        (httpx.Response(401, text="bad key"), EndpointError, r"refuses the key \(401 bad key\)", None),
        (httpx.Response(404, text="no"), EndpointError, "does not know this address or the model 'm'", None),
    ],
)
def test_answers_are_told_apart(response, error, message, paid):
    with pytest.raises(error, match=message) as caught:
        ask(lambda request: response)
    if paid is not None:
        assert caught.value.maybe_paid is paid
        assert caught.value.retry_after == (7.0 if response.status_code == 429 else None)


@pytest.mark.parametrize(
    ("broken", "kind", "paid"),
    [
        (httpx.ConnectError("no"), "no connection", False),
        (httpx.ReadTimeout("late"), "time-out", True),
        (httpx.RemoteProtocolError("cut"), "dropped", True),
        (httpx.ReadError("reset"), "dropped", True),
    ],
)
def test_broken_connections_are_faults(broken, kind, paid):
    def handler(request):
        raise broken

    with pytest.raises(EndpointFault) as caught:
        ask(handler)
    assert (caught.value.kind, caught.value.maybe_paid) == (kind, paid)


def test_a_refused_schema_is_remembered_with_the_words_of_the_server():
    asked = []

    def handler(request):
        asked.append("response_format" in request.content.decode())
        return httpx.Response(400, text="json_schema: no such thing") if asked[-1] else httpx.Response(200, json=BODY)

    async def run():
        server = OpenAiServer("http://host/v1", "m")
        server._client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
        assert server.refused_schema == ""
        await server.ask(REQUEST)
        await server.ask(REQUEST)
        await server.close()
        return server.refused_schema

    assert asyncio.run(run()) == "json_schema: no such thing"
    assert asked == [True, False, False]


def test_a_wrong_address_is_refused():
    with pytest.raises(EndpointError, match="--endpoint 'localhost:8000': is no address"):
        OpenAiServer("localhost:8000", "m")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-2", 0.0),
        ("Mon, 01 Jan 2024 00:00:30 GMT", 30.0),
        ("Sun, 31 Dec 2023 23:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_seconds(value, datetime(2024, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("body", [None, [], {}, {"choices": [{}]}, {"choices": [{"message": {"content": None}}]}, "x"])
def test_bodies_of_another_shape_are_faults(body):
    with pytest.raises(EndpointFault, match="not a reply"):
        reply_of_body(body)


def test_everything_that_may_change_a_reply_is_in_the_key():
    from dataclasses import replace

    from data_builders.llm_writer.endpoint import Sampling

    changes = {
        "model": "other",
        "prompt": "open_aqa@2",
        "subject": "t",
        "messages": (("user", "Ha"),),
        "sampling": Sampling(seed=1),
        "schema": None,
    }
    keys = {REQUEST.key(), *(replace(REQUEST, **{name: value}).key() for name, value in changes.items())}
    assert len(keys) == 1 + len(changes)
    assert replace(REQUEST).key() == REQUEST.key()
