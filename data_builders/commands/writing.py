"""`lalm data write`: from facts to written records, over a server, a local model, or a batch file."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lalm.errors import DataError, LalmError

if TYPE_CHECKING:
    from data_builders.llm_writer.batch import Collector
    from data_builders.llm_writer.client import Client
    from data_builders.llm_writer.endpoint import Endpoint
    from data_builders.llm_writer.writer import WritingJob, Written

LOCAL_REPLY_SECONDS = 3600.0
"""A model in this process is not given up like a server that hangs."""
UNFINISHED = 3
"""Exit status when clips still wait for replies and the same command goes on with them."""


def write(
    facts: Annotated[Path, typer.Argument(help="What is known of the clips: facts as .jsonl, or any file of records.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .jsonl or .parquet to write.")],
    recipe: Annotated[
        str,
        typer.Option(
            "-r", "--recipe", help="open_aqa, reasoning, dialogue, music_qa, staged_caption, spoken or chain."
        ),
    ] = "open_aqa",
    endpoint: Annotated[
        str | None, typer.Option(help="Base URL of a server with OpenAI's chat completions: http://localhost:8000/v1.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model's name at the endpoint; without one, a folder or package:NAME to run in here."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed writes other rows.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option(help="Only so many clips.", min=1)] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at the server at once.", min=1)] = 8,
    requests_per_minute: Annotated[float | None, typer.Option("--rpm", help="Requests a minute.", min=0.01)] = None,
    tokens_per_minute: Annotated[float | None, typer.Option("--tpm", help="Tokens a minute.", min=1)] = None,
    request_seconds: Annotated[float, typer.Option(help="Longest wait for one reply.", min=0.1)] = 120.0,
    attempts: Annotated[
        int, typer.Option(help="Attempts at one request before it is left for another run.", min=1)
    ] = 8,
    max_tokens: Annotated[int, typer.Option(help="Longest reply.", min=16)] = 800,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.7,
    structured: Annotated[bool, typer.Option(help="Ask the server to hold replies to a JSON schema.")] = True,
    price_in: Annotated[float, typer.Option(help="Price of a million prompt tokens.", min=0.0)] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million reply tokens.", min=0.0)] = 0.0,
    max_cost: Annotated[
        float | None, typer.Option(help="Spend no more than this, earlier runs on the journal included.", min=0.0)
    ] = None,
    max_requests: Annotated[int | None, typer.Option(help="Make no more attempts than this.", min=0)] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Where paid replies are kept; next to the rows by default.")
    ] = None,
    fsync: Annotated[
        str, typer.Option(help="When the journal reaches the disk: always, interval or never.")
    ] = "interval",
    api_key_env: Annotated[str, typer.Option(help="The variable that holds the key.")] = "OPENAI_API_KEY",
    labeller: Annotated[
        Path | None, typer.Option(help="A trained run folder that listens to the clips (staged_caption).")
    ] = None,
    speak: Annotated[str | None, typer.Option(help="Who says instructions aloud: espeak-ng (spoken).")] = None,
    batch_out: Annotated[
        Path | None, typer.Option(help="Ask nobody: write the requests as an offline batch file.")
    ] = None,
    batch_in: Annotated[Path | None, typer.Option(help="Take the results of an offline batch first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nobody: count requests, tokens, cost, time.")] = False,
    seconds_per_reply: Annotated[float, typer.Option(help="For the estimate of --dry-run.", min=0.001)] = 5.0,
) -> None:
    """Have a language model write open questions and answers, grounded in what is known of each clip.

    Every reply is kept in a journal before it is used. Stopped or killed, the same command goes on where it was and
    asks for nothing twice.
    """
    from data_builders.llm_writer.endpoint import Sampling
    from data_builders.llm_writer.facts import read_facts
    from data_builders.llm_writer.recipes import writing_recipe
    from data_builders.llm_writer.writer import WritingJob

    try:
        asks_nobody = dry_run or batch_out is not None or (batch_in is not None and endpoint is None)
        if model is None:
            raise DataError(
                "--model: is missing. Name the model at --endpoint, or a folder or package:NAME to run here."
            )
        if fsync not in ("always", "interval", "never"):
            raise DataError(f"--fsync '{fsync}' is not known. Accepted: always, interval, never.")
        if out.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"--out {out}: cannot write '{out.suffix}' files. Accepted: .jsonl, .parquet.")
        if max_cost is not None and not (price_in or price_out):
            raise DataError("--max-cost needs prices. Give --price-in and --price-out, per million tokens.")
        known = read_facts(facts)[:limit]
        with ExitStack() as stack:
            where = out
            if dry_run:
                where = Path(stack.enter_context(tempfile.TemporaryDirectory())) / out.name
            job = WritingJob(
                recipe=writing_recipe(recipe),
                out=where,
                audio_folder=facts.parent,
                seed=seed,
                sampling=Sampling(max_tokens=max_tokens, temperature=temperature),
                helpers=_helpers(labeller, speak),
            )
            job.check()
            _run(
                known,
                job,
                stack,
                endpoint=_endpoint(model, endpoint, api_key_env, concurrency, structured, asks_nobody),
                client_options={
                    "concurrency": concurrency,
                    "requests_per_minute": requests_per_minute,
                    "tokens_per_minute": tokens_per_minute,
                    "request_seconds": request_seconds if endpoint else LOCAL_REPLY_SECONDS,
                    "calls_helpers": not dry_run,
                },
                attempts=attempts,
                prices=(price_in, price_out),
                ceilings={"max_cost": max_cost, "max_requests": max_requests},
                journal_path=journal or out.with_name(f"{out.stem}.journal.jsonl"),
                fsync=fsync,  # type: ignore[arg-type]
                batch_in=batch_in,
                batch_out=batch_out,
                structured=structured,
                dry_run=dry_run,
                seconds_per_reply=seconds_per_reply,
            )
    except LalmError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from None


def _run(
    known: list,
    job: WritingJob,
    stack: ExitStack,
    *,
    endpoint: Endpoint,
    client_options: dict[str, Any],
    attempts: int,
    prices: tuple[float, float],
    ceilings: dict[str, Any],
    journal_path: Path,
    fsync: Literal["always", "interval", "never"],
    batch_in: Path | None,
    batch_out: Path | None,
    structured: bool,
    dry_run: bool,
    seconds_per_reply: float,
) -> None:
    import asyncio

    from data_builders.llm_writer.batch import Collector, read_batch, write_batch
    from data_builders.llm_writer.budget import Budget, Prices
    from data_builders.llm_writer.client import Client
    from data_builders.llm_writer.journal import Journal
    from data_builders.llm_writer.limits import BackOff
    from data_builders.llm_writer.writer import write_all

    if dry_run and not journal_path.is_file():
        journal_path = job.out.with_name("journal.jsonl")
    journal = stack.enter_context(Journal(journal_path, fsync=fsync))
    budget_prices = Prices(*prices)
    if batch_in is not None:
        ingested = read_batch(batch_in, journal, budget_prices)
        for problem in ingested.problems:
            typer.secho(problem, fg="yellow", err=True)
        typer.echo(f"{batch_in}: {ingested.taken} results taken, {len(ingested.problems)} not")

    async def run() -> tuple[Client, Written]:
        budget = Budget(budget_prices, **ceilings, spent=journal.cost)
        client = Client(endpoint, journal, budget, back_off=BackOff(attempts=attempts), **client_options)
        try:
            with _bar(len(known)) as advance:
                return client, await write_all(known, job, client, progress=advance)
        finally:
            await endpoint.close()

    _, written = asyncio.run(run())
    if dry_run:
        assert isinstance(endpoint, Collector)
        _print_estimate(endpoint, written, job, budget_prices, client_options, seconds_per_reply)
        return
    if batch_out is not None:
        assert isinstance(endpoint, Collector)
        count = write_batch(batch_out, endpoint.requests, structured=structured)
        typer.echo(f"{batch_out}: {count} requests. Run them, then give their results with --batch-in.")
    _print_written(written, job)
    if written.unfinished and batch_out is None:
        raise typer.Exit(UNFINISHED)


def _endpoint(
    model: str, url: str | None, key_variable: str, connections: int, structured: bool, asks_nobody: bool
) -> Endpoint:
    if asks_nobody:
        from data_builders.llm_writer.batch import Collector

        return Collector(model)
    if url is None:
        from data_builders.llm_writer.local_model import LocalModel

        return LocalModel(model)
    from data_builders.llm_writer.openai_http import OpenAiServer

    key = os.environ.get(key_variable)
    return OpenAiServer(url, model, api_key=key, connections=connections, structured=structured)


def _helpers(labeller: Path | None, speak: str | None):
    from data_builders.llm_writer.helpers import Helpers, espeak_helper, run_folder_helper

    if speak not in (None, "espeak-ng"):
        raise DataError(f"--speak '{speak}' is not known. Accepted: espeak-ng.")
    return Helpers(
        hear=run_folder_helper(labeller) if labeller else None,
        speak=espeak_helper() if speak else None,
    )


def _bar(total: int):
    """A context that gives the function to call with the number of clips done."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def opened():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("clips", total=total)
            yield lambda done: bar.update(task, completed=done)

    return opened()


def _print_written(written: Written, job: WritingJob) -> None:
    typer.echo(f"{job.out}: {written.rows} rows of {written.clips} clips")
    asked = f"{written.requests} attempts, {written.from_journal} replies from the journal, cost {written.cost:.6g}"
    busy = "" if written.busy_share is None else f", slots {written.busy_share:.0%} busy"
    typer.echo(asked + busy)
    if written.faults:
        faults = ", ".join(f"{count} x {kind}" for kind, count in sorted(written.faults.items()))
        typer.echo(f"faults met: {faults}")
    if written.rejected:
        typer.echo(f"{sum(written.rejected.values())} left out, with reasons in {job.rejects}:")
        for reason, count in written.rejected.most_common(5):
            typer.echo(f"  {count:6d}  {reason}")
    if written.unfinished:
        text = f"{written.unfinished} clips wait for replies: {written.waits_for}. The same command goes on with them."
        typer.secho(text, fg="yellow", err=True)


def _print_estimate(
    collector: Collector,
    written: Written,
    job: WritingJob,
    prices,
    options: dict[str, Any],
    seconds_per_reply: float,
) -> None:
    from data_builders.llm_writer.estimate import estimate

    guess = estimate(
        collector.requests.values(),
        prices=prices,
        likely_reply_tokens=job.recipe.likely_tokens,
        concurrency=options["concurrency"],
        seconds_per_reply=seconds_per_reply,
        requests_per_minute=options["requests_per_minute"],
        tokens_per_minute=options["tokens_per_minute"],
    )
    typer.echo(
        f"{guess.requests} requests for {written.clips} clips; {written.from_journal} replies are in the journal"
    )
    typer.echo(f"about {guess.prompt_tokens} prompt tokens and {guess.reply_tokens} reply tokens")
    typer.echo(f"about {guess.cost:.6g}, at most {guess.most_cost:.6g} in the first round")
    minutes = f"about {guess.seconds / 60:.1f} minutes, bound by {guess.bound_by}"
    typer.echo(f"{minutes}, at {seconds_per_reply:g} s a reply (assumed)")
    if job.recipe.needs:
        typer.echo(f"not counted: calls of a helper that can {' and '.join(job.recipe.needs)}, and what waits for them")
    skipped = sum(count for reason, count in written.rejected.items() if reason)
    if skipped:
        typer.echo(f"{skipped} clips cannot be asked this recipe, or were rejected before")
