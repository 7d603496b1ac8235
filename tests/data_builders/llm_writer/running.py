"""Runs the writer against a stub in a test: small waits, a journal in the test's folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_builders.llm_writer.journal import Journal
from data_builders.llm_writer.limits import Breaker, Limits
from data_builders.llm_writer.openai_http import OpenAiServer
from data_builders.llm_writer.recipes import writing_recipe
from data_builders.llm_writer.writer import WritingJob, Written, write_rows

QUICK: dict[str, Any] = {"attempts": 1000, "first_wait_seconds": 0.001, "longest_wait_seconds": 0.01}
NEVER_OPENS = Breaker(faults=10**9)
"""A test's machine may be slow enough to let many requests time out in a row."""


def run_writer(
    folder: Path,
    facts: list,
    endpoint: Any,
    *,
    recipe: str = "open_aqa",
    out: str = "rows.jsonl",
    journal: str = "journal.jsonl",
    breaker: Breaker = NEVER_OPENS,
    job: dict[str, Any] | None = None,
    calls_helpers: bool = True,
    report: Callable[[str], object] = lambda line: None,
    **limits: Any,
) -> Written:
    """Writes `folder/out` from the journal and an endpoint: a URL, or an object that answers."""
    chosen = Limits(**(QUICK | limits))
    if isinstance(endpoint, str):
        endpoint = OpenAiServer(endpoint, "stub", connections=chosen.concurrency)
    work = WritingJob(writing_recipe(recipe), folder / out, audio_folder=folder, **(job or {}))
    with Journal(folder / journal, fsync="never") as replies:
        told: dict[str, Any] = {"calls_helpers": calls_helpers, "report": report}
        return write_rows(facts, work, endpoint, replies, chosen, breaker=breaker, **told)


def write_arguments(facts: Path, out: Path, url: str, *options: str) -> list[str]:
    """Those of `lalm data write`."""
    return ["write", str(facts), "-o", str(out), "--endpoint", url, *options]


def write_command(facts: Path, out: Path, url: str, *options: str) -> list[str]:
    """The command line of `lalm data write` in a process of its own."""
    program = "from data_builders.cli import main; main()"
    return [sys.executable, "-c", program, *write_arguments(facts, out, url, *options)]


def paid_keys(journal: Path) -> set[str]:
    """Keys of the requests whose replies a journal holds, in whole lines."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
    return {entry["key"] for entry in map(json.loads, lines) if entry["kind"] != "lost"}
