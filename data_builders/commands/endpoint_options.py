"""Options of the commands that ask a model many questions: where it is, how fast it is asked, what it may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UNFINISHED = 3
"""Exit status when something still waits for replies and the same command goes on with it."""

EndpointOption = Annotated[
    str | None, typer.Option(help="Base URL of a server with OpenAI's chat completions: http://localhost:8000/v1.")
]
ApiKeyOption = Annotated[str, typer.Option(help="The variable that holds the key.")]
ConcurrencyOption = Annotated[int, typer.Option(help="Requests at the server at once.", min=1)]
RequestsOption = Annotated[float | None, typer.Option("--rpm", help="Requests a minute.", min=0.01)]
TokensOption = Annotated[float | None, typer.Option("--tpm", help="Tokens a minute.", min=1)]
RequestSecondsOption = Annotated[float, typer.Option(help="Longest wait for one reply.", min=0.1)]
AttemptsOption = Annotated[int, typer.Option(help="Attempts at one request in one run.", min=1)]
PriceInOption = Annotated[float, typer.Option(help="Price of a million prompt tokens.", min=0.0)]
PriceOutOption = Annotated[float, typer.Option(help="Price of a million reply tokens.", min=0.0)]
MaxCostOption = Annotated[
    float | None, typer.Option(help="Spend no more than this, earlier runs on the journal included.", min=0.0)
]
MaxRequestsOption = Annotated[int | None, typer.Option(help="Make no more attempts than this.", min=0)]
JournalOption = Annotated[Path | None, typer.Option(help="Where paid replies are kept; next to the rows by default.")]


def warn(line: str) -> None:
    """Tells the user what goes on, beside what the command prints."""
    typer.secho(line, fg="yellow", err=True)
