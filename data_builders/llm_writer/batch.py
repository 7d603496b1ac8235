"""The offline batch file of OpenAI and vLLM: requests out as JSONL, results in, through the same journal.

    lalm data write facts.jsonl -o rows.jsonl --model NAME --batch-out requests.jsonl
    vllm run-batch -i requests.jsonl -o results.jsonl --model NAME
    lalm data write facts.jsonl -o rows.jsonl --model NAME --batch-in results.jsonl

A recipe of several steps, or replies that could not be used, take another round: --batch-in and --batch-out together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_builders.filters.base import atomic_text
from data_builders.llm_writer.budget import Prices
from data_builders.llm_writer.client import REFUSED, REPLY
from data_builders.llm_writer.endpoint import EndpointFault, LlmRequest, NotYet, Reply
from data_builders.llm_writer.journal import Journal
from data_builders.llm_writer.openai_http import reply_of_body
from lalm.errors import DataError

ROUTE = "/v1/chat/completions"
_TRY_AGAIN = (408, 409, 425, 429)


@dataclass
class Collector:
    """An endpoint that answers nothing and keeps what it was asked: for a batch file, and for a dry run."""

    model: str
    requests: dict[str, LlmRequest] = field(default_factory=dict)

    async def ask(self, request: LlmRequest) -> Reply:
        """Keeps the request.

        Raises:
            NotYet: always.
        """
        self.requests[request.key()] = request
        raise NotYet("its request is written down, not sent")

    async def close(self) -> None:
        """Nothing to close."""


def write_batch(path: Path, requests: dict[str, LlmRequest], *, structured: bool = True) -> int:
    """Writes one line a request, atomically and in the order of their keys; returns the count."""
    with atomic_text(path) as out:
        for key in sorted(requests):
            body = requests[key].body(structured=structured)
            line = {"custom_id": key, "method": "POST", "url": ROUTE, "body": body}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(requests)


def read_batch(path: Path, journal: Journal, prices: Prices) -> tuple[int, list[str]]:
    """Takes the results of a batch into the journal. A result that is there already is not taken twice.

    Returns how many results were taken, and a line for each that was not.

    A failed request is taken as refused when its status is the client's fault, else left to be asked again.

    Raises:
        DataError: if there is no such file.
    """
    if not path.is_file():
        raise DataError(f"--batch-in {path}: no such file. It is what the batch run wrote.")
    taken, problems = 0, []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                result = json.loads(line)
                key = result["custom_id"]
                bytes.fromhex(key)
                response = result.get("response") or {}
                status = response.get("status_code") or (500 if result.get("error") else 200)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problems.append(f"{path}:{number}: is no batch result ({error!r})")
                continue
            if status == 200:
                try:
                    reply = reply_of_body(response.get("body"))
                except EndpointFault as fault:
                    problems.append(f"{path}:{number}: {fault}")
                    continue
                journal.put(REPLY, key, asdict(reply), cost=prices.of_reply(reply))
                taken += 1
            elif 400 <= status < 500 and status not in _TRY_AGAIN:
                journal.put(REFUSED, key, f"the batch refused the request ({status})")
                taken += 1
            else:
                problems.append(f"{path}:{number}: failed with {status}; it will be asked again")
    return taken, problems
