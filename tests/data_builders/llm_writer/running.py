"""Runs the writer against a stub in a test: small waits, a journal in the test's folder."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from data_builders.llm_writer.budget import Budget, Prices
from data_builders.llm_writer.client import Client
from data_builders.llm_writer.journal import Journal
from data_builders.llm_writer.limits import BackOff
from data_builders.llm_writer.openai_http import OpenAiServer
from data_builders.llm_writer.recipes import writing_recipe
from data_builders.llm_writer.writer import WritingJob, Written, write_all

QUICK = BackOff(attempts=60, first_seconds=0.001, longest_seconds=0.01)


def run_writer(
    folder: Path,
    facts: list,
    endpoint: Any,
    *,
    recipe: str = "open_aqa",
    budget: dict[str, Any] | None = None,
    prices: Prices | None = None,
    seed: int = 0,
    out: str = "rows.jsonl",
    journal: str = "journal.jsonl",
    job_options: dict[str, Any] | None = None,
    **client_options: Any,
) -> tuple[Written, Client]:
    """Writes `folder/out` from the journal and an endpoint: a URL, or an object that answers."""
    job = WritingJob(writing_recipe(recipe), folder / out, audio_folder=folder, seed=seed, **(job_options or {}))
    client_options = {"back_off": QUICK, "concurrency": 8} | client_options

    async def run(journal_file: Journal) -> tuple[Written, Client]:
        answering = endpoint
        if isinstance(endpoint, str):
            answering = OpenAiServer(endpoint, "stub", connections=client_options["concurrency"])
        limits = Budget(prices, spent=journal_file.cost, **(budget or {}))
        client = Client(answering, journal_file, limits, **client_options)
        try:
            return await write_all(facts, job, client), client
        finally:
            await answering.close()

    with Journal(folder / journal, fsync="never") as journal_file:
        return asyncio.run(run(journal_file))
