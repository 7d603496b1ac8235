"""The `lalm` command. Every command has its file in `lalm.commands` and imports what it needs when it runs."""

from __future__ import annotations

import gc
import logging
import os
import sys

import typer

from data_builders.cli import app as data_app
from lalm import __version__
from lalm.commands import (
    bench,
    cache,
    chat,
    check,
    convert,
    doctor,
    evaluate,
    models,
    recipes,
    runs,
    show,
    train,
    units,
)
from lalm.errors import LalmError
from lalm.lean_imports import import_less

USER_ERROR = 2
"""Exit status when a file, a key or a value that the user gave is at fault."""

COLLECT_EVERY = 50_000
"""New objects between two looks for unreachable ones. Importing torch, transformers and peft makes many that stay:
6.1 s with Python's own 700, 5.4 with this."""

app = typer.Typer(
    name="lalm",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Give a language model ears: train, evaluate and chat with audio-language models from one recipe file.",
)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(chat.chat)
app.command()(check.check)
app.command()(show.show)
app.command()(runs.runs)
app.command()(doctor.doctor)
app.command()(cache.cache)
app.command()(convert.convert)
app.add_typer(bench.app, name="bench")
app.add_typer(recipes.app, name="recipes")
app.add_typer(models.app, name="models")
app.add_typer(units.app, name="units")
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _lalm(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(f"lalm {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command line. An error of the user's files is one red message and exit status 2, without a traceback."""
    # bitsandbytes 0.50 warns of an optional 4-bit kernel whenever peft imports it, whatever is done then.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
    try:
        app()
    except LalmError as error:
        typer.secho(str(error), fg="red", err=True)
        sys.exit(USER_ERROR)


def start() -> None:
    """`main` in a process of its own, in which `lalm check` leaves out what it does not need."""
    if not sys.stderr.isatty():  # In a file, the bars of weights being read stand in the way of what is said.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    if sys.argv[1:2] == ["check"]:
        import_less()
        gc.disable()  # What a check leaves behind is small, and gone with its process: a tenth of its time.
    try:
        main()
    except SystemExit as end:
        if sys.argv[1:2] != ["check"]:
            raise
        _leave_at_once(int(end.code or 0))


def _leave_at_once(status: int) -> None:
    """Ends the process without taking apart what torch and transformers made, which takes a second. For a command that
    has closed its files and waits for no thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    start()
