"""What is asked of a language model and what comes back, whoever answers: a server, a local model, a batch file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_builders.llm_writer.facts import canonical_json

FRAMING_TOKENS = 16
"""Room for what a chat template adds around one message, when prompt tokens are bounded from above."""


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn. `seed` reaches the server too, where it has one."""

    max_tokens: int = 800
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class LlmRequest:
    """One question to a model.

    `prompt` is "name@version"; `subject` the digest of the facts; `schema` the JSON schema wanted of the reply.
    """

    model: str
    prompt: str
    subject: str
    messages: tuple[tuple[str, str], ...]
    sampling: Sampling = field(default_factory=Sampling)
    schema: dict[str, Any] | None = None

    def key(self) -> str:
        """sha256 over everything that could change the reply: by it a reply is found again and paid once."""
        content = [self.model, self.prompt, self.subject, self.messages, vars(self.sampling), self.schema]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def body(self, *, structured: bool) -> dict[str, Any]:
        """The chat-completions body; `structured` asks the server to hold the reply to the schema."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": content} for role, content in self.messages],
            "max_tokens": self.sampling.max_tokens,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "seed": self.sampling.seed,
        }
        if structured and self.schema is not None:
            name = self.prompt.partition("@")[0]
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": self.schema}}
        return body

    def most_prompt_tokens(self) -> int:
        """Never fewer than the prompt has: a token of a byte-level vocabulary is at least one byte."""
        return sum(len(content.encode()) + FRAMING_TOKENS for _, content in self.messages)

    def likely_prompt_tokens(self) -> int:
        """An estimate: four bytes a token, which English text comes near."""
        return sum(len(content.encode()) // 4 + FRAMING_TOKENS for _, content in self.messages)


@dataclass(frozen=True)
class Reply:
    """One answer. `finish` is the server's reason: "stop", or "length" where it was cut off."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str = "stop"


class EndpointFault(Exception):
    """An attempt that may succeed when made again.

    `kind` is a word to count by. `retry_after`: seconds that the server asks to wait. `maybe_paid`: the server may have
    worked, and billed, before the reply was lost.
    """

    def __init__(self, kind: str, detail: str, *, retry_after: float | None = None, maybe_paid: bool = False):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.retry_after = retry_after
        self.maybe_paid = maybe_paid


class RequestRefused(Exception):
    """The server will not take this one request, now or later: it is too long, or breaks a rule."""


class NotYet(Exception):
    """No reply is at hand and none may be asked for: a dry run, a batch file, a run that has stopped."""


class Endpoint(Protocol):
    """Answers requests."""

    model: str

    async def ask(self, request: LlmRequest) -> Reply:
        """One attempt.

        Raises:
            EndpointFault: for what may pass.
            RequestRefused: for this request.
            EndpointError: where no request can succeed (a wrong key, no such model).
        """
        ...

    async def close(self) -> None:
        """Gives connections and memory back."""
        ...
