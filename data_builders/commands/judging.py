"""`lalm data judge`: another model looks at every record, and what it denies or cannot judge is rejected."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands import endpoint_options as options
from data_builders.commands.errors import one_line_errors


def judge(
    file: Annotated[Path, typer.Argument(help="Records: .jsonl, .parquet or .csv.", metavar="FILE")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .jsonl or .parquet for the kept records.")],
    model: Annotated[
        str, typer.Option(help="The judge's name at the endpoint; without one, a folder or package:NAME to run here.")
    ],
    endpoint: options.EndpointOption = None,
    api_key_env: options.ApiKeyOption = "OPENAI_API_KEY",
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
) -> None:
    """Have another model judge every record, closed ones with the options in both orders; keep what it accepts.

    Stopped or killed, the same command goes on where it was and asks for nothing twice.
    """
    with one_line_errors():
        from data_builders.commands.filtering import run_and_write
        from data_builders.filters.judging import JudgePass
        from data_builders.llm_writer.budget import Prices
        from data_builders.llm_writer.client import Client
        from data_builders.llm_writer.endpoint import Endpoint
        from data_builders.llm_writer.journal import Journal
        from data_builders.llm_writer.judge import ServedJudge
        from data_builders.llm_writer.limits import Limits
        from lalm.data.records import read_records

        limits = Limits(
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            request_seconds=request_seconds,
            attempts=attempts,
            prices=Prices(price_in, price_out),
            max_cost=max_cost,
            max_requests=max_requests,
        )
        answering: Endpoint
        if endpoint is None:
            from data_builders.llm_writer.local_model import LocalModel

            answering = LocalModel(model, structured=True)
        else:
            from data_builders.llm_writer.openai_http import OpenAiServer

            key = os.environ.get(api_key_env)
            answering = OpenAiServer(endpoint, model, api_key=key, connections=concurrency, structured=True)

        async def asked(client: Client) -> tuple[int, str]:
            try:
                return await ServedJudge(client).ask_ahead(read_records(file))
            finally:
                await answering.close()

        with Journal(journal or out.with_name(f"{out.stem}.judged.jsonl")) as replies:
            client = Client(answering, replies, limits, report=options.warn)
            waiting, why = asyncio.run(asked(client))
            if waiting:
                text = f"{waiting} records wait for a verdict: {why.rstrip('.')}. The same command goes on with them."
                options.warn(text)
                raise typer.Exit(options.UNFINISHED)
            run_and_write(file, out, [JudgePass(ServedJudge(client))])
            typer.echo(f"{out}: {client.budget.requests} attempts, cost {replies.cost:.6g}")
