"""Runs a recipe over facts: many clips under way, rows written in the order of the facts, rejects with reasons beside.

The rows depend on the facts, the recipe, the seed and the replies, not on the concurrency or on when a run was killed:
a run that is started again reads the journal and asks for the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_builders.llm_writer.asker import Asker, Rejected, Row
from data_builders.llm_writer.checks import Reason
from data_builders.llm_writer.client import Client
from data_builders.llm_writer.endpoint import Endpoint, NotYet, Sampling
from data_builders.llm_writer.facts import Facts
from data_builders.llm_writer.helpers import Helpers
from data_builders.llm_writer.journal import Journal
from data_builders.llm_writer.limits import Breaker, Limits
from data_builders.llm_writer.recipes.base import WritingRecipe
from lalm.data.records import Record, parse_record, write_records
from lalm.errors import DataError

MORE_CLIPS_THAN_SLOTS = 4
"""Clips under way for each slot, so that a slot is used while other clips wait between attempts."""


@dataclass
class Written:
    """How a run ended."""

    rows: int = 0
    clips: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Clips or pieces of replies without a row, by the kind of the reason."""
    unfinished: int = 0
    """Clips that wait for replies."""
    waits_for: str = ""
    requests: int = 0
    from_journal: int = 0
    cost: float = 0.0
    """Of the whole journal."""
    faults: dict[str, int] = field(default_factory=dict)
    busy_share: float | None = None


@dataclass(frozen=True)
class WritingJob:
    """What is written where. Paths of clips are relative to `audio_folder`."""

    recipe: WritingRecipe
    out: Path
    audio_folder: Path
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    helpers: Helpers = field(default_factory=Helpers)
    pairs: int | None = None
    """Questions a clip, for recipes that leave it open."""

    def check(self) -> None:
        """Raises:
        DataError: if the recipe needs a helper that is not at hand.
        """
        for need in self.recipe.needs:
            if getattr(self.helpers, need) is None:
                raise DataError(f"recipe '{self.recipe.name}' needs a helper that can {need}: {_WAYS[need]}.")

    @property
    def rejects(self) -> Path:
        """The sidecar: what was not written, and why."""
        return self.out.with_name(f"{self.out.stem}.rejects.jsonl")


_WAYS = {
    "hear": "give --labeller RUN, a trained run folder",
    "speak": "give --speak espeak-ng",
    "similarity": "give one from Python, as Helpers(similarity=...)",
}


@dataclass
class _Outcome:
    records: list[Record]
    reasons: list[Reason]
    used: list[dict[str, Any]]
    waits_for: str = ""


def write_rows(
    facts: Iterable[Facts],
    job: WritingJob,
    endpoint: Endpoint,
    journal: Journal,
    limits: Limits | None = None,
    *,
    breaker: Breaker | None = None,
    calls_helpers: bool = True,
    progress: Callable[[int], None] = lambda clips: None,
    report: Callable[[str], object] = lambda line: None,
) -> Written:
    """Writes `job.out` and its sidecar of rejects, both atomically, with every row that could be finished.

    The endpoint is closed at the end. `progress` is told the number of clips done, `report` of a first failed attempt.

    Raises:
        DataError: if the recipe needs a helper that is not at hand.
    """
    job.check()

    async def run() -> Written:
        client = Client(endpoint, journal, limits or Limits(), breaker or Breaker(), calls_helpers, report)
        try:
            return await _write_all(facts, job, client, progress)
        finally:
            await endpoint.close()

    return asyncio.run(run())


async def _write_all(
    facts: Iterable[Facts], job: WritingJob, client: Client, progress: Callable[[int], None]
) -> Written:
    written = Written()
    job.out.parent.mkdir(parents=True, exist_ok=True)
    # Names of their own and no random ones: what a killed run leaves, the next run writes over.
    spooled, rejects_file = (job.out.with_name(f".{job.out.name}.{part}") for part in ("rows", "rejects"))
    try:
        with spooled.open("w", encoding="utf-8") as rows, rejects_file.open("w", encoding="utf-8") as rejects:
            async for known, outcome in _in_order(facts, job, client):
                written.clips += 1
                written.rows += len(outcome.records)
                for record in outcome.records:
                    rows.write(json.dumps(record.to_json(), ensure_ascii=False) + "\n")
                if outcome.waits_for:
                    written.unfinished += 1
                    written.waits_for = written.waits_for or outcome.waits_for
                for reason in outcome.reasons:
                    written.rejected[reason.kind] += 1
                    entry = {"id": known.id, "recipe": job.recipe.name, **vars(reason), "asked": outcome.used}
                    rejects.write(json.dumps(entry, ensure_ascii=False) + "\n")
                progress(written.clips)
        write_records(job.out, _read_spooled(spooled))
        rejects_file.replace(job.rejects)
    finally:
        for file in (spooled, rejects_file):
            file.unlink(missing_ok=True)
    written.requests = client.budget.requests
    written.from_journal = client.from_journal
    written.cost = client.journal.cost
    written.faults = dict(client.faults)
    written.busy_share = client.meter.share()
    return written


async def _in_order(facts: Iterable[Facts], job: WritingJob, client: Client):
    """Facts with their outcomes, in order, with a bounded number of clips under way."""
    window = client.limits.concurrency * MORE_CLIPS_THAN_SLOTS
    waiting: deque[tuple[Facts, asyncio.Task[_Outcome]]] = deque()
    unfinished = 0
    exhausted = False

    def one_less(_: object) -> None:
        nonlocal unfinished
        unfinished -= 1
        if exhausted and unfinished < client.limits.concurrency:
            client.meter.end()

    source = iter(facts)
    try:
        while True:
            # A slow clip at the head may hold this many finished ones back, and stops neither them nor new ones.
            while not exhausted and unfinished < window and len(waiting) < 8 * window:
                known = next(source, None)
                if known is None:
                    exhausted = True
                    break
                task = asyncio.ensure_future(_write_clip(known, job, client))
                unfinished += 1
                task.add_done_callback(one_less)
                waiting.append((known, task))
            if not waiting:
                return
            if not waiting[0][1].done():
                await asyncio.wait([task for _, task in waiting if not task.done()], return_when="FIRST_COMPLETED")
            while waiting and waiting[0][1].done():
                known, task = waiting.popleft()
                yield known, task.result()
    finally:
        for _, task in waiting:
            task.cancel()


async def _write_clip(facts: Facts, job: WritingJob, client: Client) -> _Outcome:
    reason = job.recipe.ill_posed(facts)
    if reason:
        return _Outcome([], [Reason(f"not asked: {reason}")], [])
    asker = Asker(
        facts,
        client,
        job.helpers,
        job.sampling,
        seed=job.seed,
        audio_folder=job.audio_folder,
        out_folder=job.out.parent,
        pairs=job.pairs,
    )
    try:
        rows = await job.recipe.write(asker)
        records = [_record(row, asker, job, client.endpoint.model) for row in rows]
    except Rejected as rejection:
        return _Outcome([], list(rejection.reasons), asker.used)
    except NotYet as waiting:
        return _Outcome([], [], asker.used, waits_for=str(waiting))
    return _Outcome(records, asker.reasons, asker.used)


def _record(row: Row, asker: Asker, job: WritingJob, model: str) -> Record:
    facts = asker.facts
    value = {
        "id": f"{job.recipe.name}-{facts.id}-{row.tail}" + (f"-s{job.seed}" if job.seed else ""),
        "audio": [*(_moved(path, job.audio_folder, job.out.parent) for path in facts.audio), *row.extra_audio],
        "turns": [turn.model_dump() for turn in row.turns],
        "task": row.task,
        "answer_type": row.answer_type,
        "choices": row.choices,
        "source": facts.source,
        "split": facts.split,
        "licence": facts.licence,
        "provenance": {
            **facts.provenance,
            "written_by": {
                "model": model,
                "recipe": job.recipe.name,
                "seed": job.seed,
                "temperature": job.sampling.temperature,
                "facts": facts.digest(),
                "asked": asker.used,
            },
        },
        "meta": {"clip": facts.id, **facts.known(), **row.meta},
    }
    try:
        return parse_record(value, f"clip '{facts.id}'")
    except DataError as error:
        raise Rejected(Reason("breaks the record contract", str(error))) from None


def _moved(path: str, folder: Path, new_folder: Path) -> str:
    return Path(os.path.relpath((folder / path).resolve(), new_folder.resolve())).as_posix()


def _read_spooled(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Record.model_validate_json(line)
