"""`lalm data write`: from facts to written records, over a server, a model in this process, or a batch file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_builders.commands import endpoint_options as options
from data_builders.commands.errors import one_line_errors
from lalm.errors import DataError

if TYPE_CHECKING:
    from data_builders.llm_writer.batch import Collector
    from data_builders.llm_writer.endpoint import Endpoint
    from data_builders.llm_writer.helpers import Helpers
    from data_builders.llm_writer.limits import Limits
    from data_builders.llm_writer.writer import WritingJob, Written

RECIPE_NAMES = "open_aqa, reasoning, dialogue, music_qa, staged_caption, spoken, chain or one_sound"
LOCAL_REPLY_SECONDS = 3600.0
"""A model in this process is not given up like a server that hangs."""


def write(
    facts: Annotated[Path, typer.Argument(help="What is known of the clips: facts as .jsonl, or any file of records.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .jsonl or .parquet to write.")],
    model: Annotated[
        str, typer.Option(help="The model's name at the endpoint; without one, a folder or package:NAME to run here.")
    ],
    recipe: Annotated[str, typer.Option("-r", "--recipe", help=f"{RECIPE_NAMES}.")] = "open_aqa",
    endpoint: options.EndpointOption = None,
    api_key_env: options.ApiKeyOption = "OPENAI_API_KEY",
    structured: Annotated[bool, typer.Option(help="Hold replies to a JSON schema.")] = True,
    seed: Annotated[int, typer.Option(help="Another seed writes other rows.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option(help="Only so many clips.", min=1)] = None,
    pairs: Annotated[int | None, typer.Option(help="Questions a clip, where the recipe leaves it open.", min=1)] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest reply.", min=16)] = 800,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.7,
    concurrency: options.ConcurrencyOption = 8,
    requests_per_minute: options.RequestsOption = None,
    tokens_per_minute: options.TokensOption = None,
    request_seconds: options.RequestSecondsOption = 120.0,
    attempts: options.AttemptsOption = 8,
    price_in: options.PriceInOption = 0.0,
    price_out: options.PriceOutOption = 0.0,
    max_cost: options.MaxCostOption = None,
    max_requests: options.MaxRequestsOption = None,
    journal: options.JournalOption = None,
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
    with one_line_errors(), ExitStack() as stack:
        from data_builders.llm_writer.batch import Collector, read_batch, write_batch
        from data_builders.llm_writer.budget import Prices
        from data_builders.llm_writer.endpoint import Sampling
        from data_builders.llm_writer.facts import read_facts
        from data_builders.llm_writer.journal import Journal
        from data_builders.llm_writer.limits import Limits
        from data_builders.llm_writer.recipes import writing_recipe
        from data_builders.llm_writer.writer import WritingJob, write_rows

        if out.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"--out {out}: cannot write '{out.suffix}' files. Accepted: .jsonl, .parquet.")
        known = read_facts(facts)[:limit]
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory())) if dry_run else None
        job = WritingJob(
            recipe=writing_recipe(recipe),
            out=scratch / out.name if scratch else out,
            audio_folder=facts.parent,
            seed=seed,
            sampling=Sampling(max_tokens=max_tokens, temperature=temperature),
            helpers=_helpers(labeller, speak),
            pairs=pairs,
        )
        job.check()
        limits = Limits(
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            request_seconds=request_seconds if endpoint else LOCAL_REPLY_SECONDS,
            attempts=attempts,
            prices=Prices(price_in, price_out),
            max_cost=max_cost,
            max_requests=max_requests,
        )
        asks_nobody = dry_run or batch_out is not None or (batch_in is not None and endpoint is None)
        answering = (
            Collector(model) if asks_nobody else _endpoint(model, endpoint, api_key_env, concurrency, structured)
        )
        journal = journal or out.with_name(f"{out.stem}.journal.jsonl")
        if scratch and not journal.is_file():
            journal = scratch / "journal.jsonl"
        replies = stack.enter_context(Journal(journal))
        if batch_in is not None:
            taken, problems = read_batch(batch_in, replies, limits.prices)
            for problem in problems:
                options.warn(problem)
            typer.echo(f"{batch_in}: {taken} results taken, {len(problems)} not")
        with _bar(len(known)) as progress:
            written = write_rows(
                known,
                job,
                answering,
                replies,
                limits,
                calls_helpers=not dry_run,
                progress=progress,
                report=options.warn,
            )
        if isinstance(answering, Collector) and dry_run:
            _print_estimate(answering, written, job, limits, seconds_per_reply)
            return
        if isinstance(answering, Collector) and batch_out is not None:
            count = write_batch(batch_out, answering.requests, structured=structured)
            typer.echo(f"{batch_out}: {count} requests. Run them, then give their results with --batch-in.")
        _print_written(written, job)
        if refusal := getattr(answering, "refused_schema", ""):
            options.warn(f"the endpoint takes no JSON schema, so the prompt alone asked for JSON: {refusal}")
        if written.unfinished and batch_out is None:
            raise typer.Exit(options.UNFINISHED)


def _endpoint(model: str, url: str | None, key_variable: str, connections: int, structured: bool) -> Endpoint:
    if url is None:
        from data_builders.llm_writer.local_model import LocalModel

        return LocalModel(model, structured=structured)
    from data_builders.llm_writer.openai_http import OpenAiServer

    key = os.environ.get(key_variable)
    return OpenAiServer(url, model, api_key=key, connections=connections, structured=structured)


def _helpers(labeller: Path | None, speak: str | None) -> Helpers:
    from data_builders.llm_writer.helpers import Helpers, espeak_helper
    from data_builders.llm_writer.own_model import own_model_helper

    if speak not in (None, "espeak-ng"):
        raise DataError(f"--speak '{speak}' is not known. Accepted: espeak-ng.")
    return Helpers(hear=own_model_helper(labeller) if labeller else None, speak=espeak_helper() if speak else None)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Gives the function to call with the number of clips done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("clips", total=total)
        yield lambda done: bar.update(task, completed=done)


def _print_written(written: Written, job: WritingJob) -> None:
    busy = "" if written.busy_share is None else f", slots {written.busy_share:.0%} busy"
    typer.echo(f"{job.out}: {written.rows} rows of {written.clips} clips")
    typer.echo(
        f"{written.requests} attempts, {written.from_journal} replies from the journal, cost {written.cost:.6g}{busy}"
    )
    if written.faults:
        faults = ", ".join(f"{count} x {kind}" for kind, count in sorted(written.faults.items()))
        typer.echo(f"faults met: {faults}")
    if written.rejected:
        typer.echo(f"{sum(written.rejected.values())} left out, with reasons in {job.rejects}:")
        for reason, count in written.rejected.most_common():
            typer.echo(f"  {count:6d}  {reason}")
    if written.unfinished:
        why = written.waits_for.rstrip(".")
        text = f"{written.unfinished} clips wait for replies: {why}. The same command goes on with them."
        options.warn(text)


def _print_estimate(
    collector: Collector, written: Written, job: WritingJob, limits: Limits, seconds_per_reply: float
) -> None:
    from data_builders.llm_writer.estimate import estimate

    guess = estimate(
        collector.requests.values(),
        limits,
        likely_reply_tokens=job.recipe.likely_tokens,
        seconds_per_reply=seconds_per_reply,
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
    if written.rejected:
        typer.echo(f"{sum(written.rejected.values())} clips cannot be asked this recipe, or were rejected before")
