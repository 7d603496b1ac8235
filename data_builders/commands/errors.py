"""How the data commands end on an error of the user's files: one line, exit status 1."""

from __future__ import annotations

import typer


class one_line_errors:
    """Prints an error of the user's files in one line and exits with 1; anything else keeps its traceback."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        from lalm.errors import LalmError

        if isinstance(error, LalmError):
            typer.secho(str(error), fg="red", err=True)
            raise typer.Exit(1) from None
