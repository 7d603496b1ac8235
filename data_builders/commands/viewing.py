"""`lalm data view`: a local page to listen, look, and accept or reject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors


def view(
    path: Annotated[Path, typer.Argument(help="A file of records, or the folder of a set.", metavar="FOLDER|FILE")],
    review: Annotated[Path | None, typer.Option(help="The review file; beside the records by default.")] = None,
    sample: Annotated[int, typer.Option(help="Records shown, drawn by seed; 0 shows all.", min=0)] = 500,
    seed: Annotated[int, typer.Option(help="Another seed draws others.")] = 0,
    host: Annotated[str, typer.Option(help="Loopback by default: the page has no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of the page.", min=0, max=65535)] = 8765,
) -> None:
    """Open a page with players, spectrograms, questions, answers and accept or reject buttons."""
    with one_line_errors():
        from data_builders.view.app import serve

        serve(path, review=review, sample=sample, seed=seed, host=host, port=port, report=typer.echo)
