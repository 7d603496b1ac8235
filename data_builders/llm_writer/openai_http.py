"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp's server, `transformers serve`, a hosted one."""

from __future__ import annotations

import email.utils
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from data_builders.llm_writer.endpoint import EndpointFault, LlmRequest, Reply, RequestRefused
from lalm.errors import EndpointError, MissingPackageError

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
DETAIL_CHARACTERS = 300


class OpenAiServer:
    """A base URL such as `http://localhost:8000/v1` and a model's name there.

    The reply's JSON schema is asked for until the server refuses it once; then the prompt alone asks for JSON, and
    `refused_schema` says so.

    Raises:
        MissingPackageError: without httpx.
        EndpointError: for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        connections: int = 8,
        structured: bool = True,
    ):
        try:
            import httpx
        except ImportError:
            raise MissingPackageError("httpx", "asking a server", "data") from None
        if not url.startswith(("http://", "https://")):
            raise EndpointError(f"--endpoint '{url}': is no address. Give one such as http://localhost:8000/v1.")
        self.model = model
        self._url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.refused_schema = ""
        """What the server said when it refused a schema; empty while it takes them."""
        self._structured = structured
        self._httpx = httpx
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # The client limits the whole attempt.
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def ask(self, request: LlmRequest) -> Reply:
        """One POST. See `Endpoint.ask`."""
        structured = self._structured
        try:
            # Servers that know the header answer a repeated attempt with the first one's reply.
            headers = {"Idempotency-Key": request.key()}
            response = await self._client.post(self._url, json=request.body(structured=structured), headers=headers)
        except (self._httpx.ConnectError, self._httpx.ConnectTimeout, self._httpx.PoolTimeout) as error:
            raise EndpointFault("no connection", repr(error)) from None
        except self._httpx.TimeoutException as error:
            raise EndpointFault("time-out", repr(error), maybe_paid=True) from None
        except self._httpx.RequestError as error:  # The connection broke before or within the reply.
            raise EndpointFault("dropped", repr(error), maybe_paid=True) from None
        if response.status_code == 400 and structured and request.schema and _is_about_the_schema(response):
            self._structured = False
            self.refused_schema = response.text[:DETAIL_CHARACTERS].strip()
            return await self.ask(request)
        if response.status_code != 200:
            raise _of_status(response, self._url, self.model)
        return reply_of_body(_json(response))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def reply_of_body(body: Any) -> Reply:
    """The reply in the JSON body of a chat completion.

    Raises:
        EndpointFault: if the body is of another shape.
    """
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
        usage = body.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not isinstance(text, str):
            raise TypeError("the content is no text")
        return Reply(text, *counts, finish=str(choice.get("finish_reason") or "stop"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        detail = f"no chat completion ({error!r}): {str(body)[:DETAIL_CHARACTERS]}"
        raise EndpointFault("not a reply", detail, maybe_paid=True) from None


def retry_after_seconds(value: str | None, now: datetime | None = None) -> float | None:
    """What a Retry-After header asks for: seconds, or a date. None where it says neither."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.fromtimestamp(time.time(), UTC))).total_seconds())


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise EndpointFault("not JSON", response.text[:DETAIL_CHARACTERS], maybe_paid=True) from None


def _is_about_the_schema(response: httpx.Response) -> bool:
    return any(word in response.text for word in ("response_format", "json_schema", "guided", "schema"))


def _of_status(response: httpx.Response, url: str, model: str) -> Exception:
    status, detail = response.status_code, response.text[:DETAIL_CHARACTERS].strip()
    if status in (401, 403):
        return EndpointError(f"{url}: the server refuses the key ({status} {detail}). Set the key's variable anew.")
    if status in (404, 405):
        return EndpointError(
            f"{url}: the server does not know this address or the model '{model}' ({status} {detail}). "
            "Look at the server's own list of models."
        )
    if status in (408, 409, 425, 429) or status >= 500:
        after = retry_after_seconds(response.headers.get("retry-after"))
        return EndpointFault(str(status), detail, retry_after=after)
    return RequestRefused(f"the server refuses the request ({status} {detail})")
