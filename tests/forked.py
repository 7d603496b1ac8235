"""Processes that a test kills, forked from one that has imported what they need: they start at once.

Python keeps one such process, whose imports are settled when it starts; here it is another one for what needs torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from typing import Any

IMPORTED = [
    *("data_builders.cli", "data_builders.pipeline", "rich.progress", "sklearn.linear_model"),
    *(f"data_builders.llm_writer.{name}" for name in ("batch", "helpers", "openai_http", "recipes", "writer")),
]  # fmt: skip


def start_server(imported: list[str]) -> None:
    """The process that others are forked from, with these imports; one with others ends."""
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if server._preload_modules != imported:
        server._stop()
        get_context("forkserver").set_forkserver_preload(imported)
    forkserver.ensure_running()


def start(target: Callable[..., Any], *args: Any) -> BaseProcess:
    """A started process that calls `target(*args)`, a function of a module."""
    start_server(IMPORTED)
    process = get_context("forkserver").Process(target=target, args=args)
    process.start()
    return process


def start_data_command(*arguments: str) -> BaseProcess:
    """`lalm data` with these arguments; what it prints goes nowhere."""
    return start(_data_command, arguments)


def _data_command(arguments: tuple[str, ...]) -> None:
    from data_builders.cli import main

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1), os.dup2(nowhere, 2)
    sys.argv = ["lalm-data", *arguments]
    main()
