"""What a recipe works with: it asks for checked objects about one clip, and calls helpers, through the journal."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from data_builders.llm_writer.checks import Reason
from data_builders.llm_writer.client import Client
from data_builders.llm_writer.endpoint import LlmRequest, NotYet, RequestRefused, Sampling
from data_builders.llm_writer.facts import Facts, canonical_json
from data_builders.llm_writer.helpers import Helper, Helpers
from data_builders.llm_writer.structured import json_schema, read_reply
from data_builders.prompts import load_prompt
from lalm.data.records import AnswerType, Turn

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Row:
    """What a recipe gives: one conversation, to become a record.

    `tail` makes its id differ from those of the recipe's other rows about the clip. `extra_audio` is heard after the
    clip; its paths are relative to the records.
    """

    turns: tuple[Turn, ...]
    tail: str
    task: str
    answer_type: AnswerType = "open"
    choices: tuple[str, ...] | None = None
    extra_audio: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """Of one reply: the rows that are good, and the reasons why others are not."""

    rows: list[Row]
    reasons: list[Reason] = field(default_factory=list)


class Rejected(Exception):
    """Nothing usable was written about a clip."""

    def __init__(self, *reasons: Reason):
        super().__init__("; ".join(map(str, reasons)))
        self.reasons = reasons


@dataclass
class Asker:
    """For one clip. What was used is collected for the provenance of its rows."""

    facts: Facts
    client: Client
    helpers: Helpers
    sampling: Sampling
    seed: int
    audio_folder: Path
    out_folder: Path
    pairs: int | None = None
    """How many questions to ask for, where a recipe leaves it open; None for the recipe's own number."""
    used: list[dict[str, Any]] = field(default_factory=list)
    """One entry an ask: prompt, request key, seed, tokens, whether the JSON was repaired."""
    reasons: list[Reason] = field(default_factory=list)
    """Why pieces of otherwise good replies were left out."""

    async def ask(
        self,
        prompt: str,
        shape: type[M],
        check: Callable[[M], Checked],
        *,
        attempt: int = 0,
        most: int | None = None,
        narrowed: Mapping[str, dict[str, Any]] | None = None,
        again: bool = True,
        **slots: Any,
    ) -> list[Row]:
        """The good rows of a reply to a prompt. Where none is good it asks once more, saying what was wrong.

        Args:
            attempt: another number asks anew with another seed.
            most: the longest list that the reply may hold.
            narrowed: what the schema asks of single keys besides (`json_schema`).
            again: whether to ask a second time. A small model does no better when it is told what was wrong.
            slots: what the prompt shows beside the facts.

        Raises:
            Rejected: when the last reply has no good row either, or the server refuses the request.
            NotYet: when no reply is to be had now.
        """
        loaded = load_prompt(prompt)
        messages = loaded.messages(facts=self.facts, **slots)
        schema = json_schema(shape, most, narrowed)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{attempt}".encode()).digest()[:4]) >> 1
        problems: list[Reason] = []
        for _ in range(2 if again else 1):
            request = LlmRequest(
                model=self.client.endpoint.model,
                prompt=loaded.title,
                subject=self.facts.digest(),
                messages=messages,
                sampling=replace(self.sampling, seed=seed),
                schema=schema,
            )
            try:
                reply = await self.client.answer(request)
            except RequestRefused as refusal:
                raise Rejected(Reason("the server refuses the request", str(refusal))) from None
            parsed = read_reply(reply, shape)
            self.used.append(
                {
                    "prompt": loaded.title,
                    "request": request.key(),
                    "seed": seed,
                    "prompt_tokens": reply.prompt_tokens,
                    "completion_tokens": reply.completion_tokens,
                }
                | ({"repaired": True} if parsed.repaired else {})
            )
            if parsed.value is not None:
                checked = check(parsed.value)
                if checked.rows:
                    self.reasons += checked.reasons
                    return checked.rows
                problems = checked.reasons or [Reason("it holds nothing")]
            else:
                problems = [parsed.problem]
            told = "; ".join(map(str, problems[:3]))
            told_again = load_prompt("again").messages(problem=told)[1]
            messages = (*messages[:2], ("assistant", reply.text), told_again)
        raise Rejected(*problems)

    async def call(self, helper: Helper, clip: str, text: str) -> Any:
        """What a helper says of a clip, called once ever for the same clip, text and helper.

        Raises:
            NotYet: if it was not called yet and the run asks nobody.
        """
        path = self.audio_folder / clip
        key = hashlib.sha256(canonical_json([helper.name, _digest_of(path), text]).encode()).hexdigest()
        kept = self.client.journal.get("helper", key)
        if kept is None:
            self._may_call(helper)
            kept = await asyncio.to_thread(helper.call, path, text)
            self.client.journal.put("helper", key, kept)
        self.used.append({"helper": helper.name, "request": key})
        return kept

    async def speak(self, text: str) -> str:
        """Says a text into a file beside the records and returns its path there; a text that was said stays said."""
        helper = self.helpers.speak
        assert helper is not None
        key = hashlib.sha256(canonical_json([helper.name, text]).encode()).hexdigest()
        file = f"speech/{key[:32]}.wav"
        path = self.out_folder / file
        if not path.is_file():
            self._may_call(helper)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}")
            await asyncio.to_thread(helper.call, text, unfinished)
            unfinished.replace(path)
        self.used.append({"helper": helper.name, "request": key})
        return file

    def _may_call(self, helper: Helper) -> None:
        if self.client.stopped or not self.client.calls_helpers:
            raise NotYet(self.client.stopped or f"'{helper.name}' is not called")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
