"""`lalm data serve-llm`: a language model behind llama.cpp's server, for `lalm data write --endpoint`."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors


def serve_llm(
    base: Annotated[str, typer.Argument(help="A .gguf file, a folder that holds one, or package:NAME.")],
    port: Annotated[int, typer.Option(help="On the loopback address, the only one served.", min=1, max=65535)] = 8080,
    slots: Annotated[int, typer.Option(help="Requests answered at once.", min=1)] = 4,
    threads: Annotated[int, typer.Option(help="Threads that compute.", min=1)] = 2,
) -> None:
    """Serve a GGUF model with OpenAI's chat completions until it is stopped (Ctrl-C)."""
    with one_line_errors():
        from data_builders.llm_writer.llama_server import llama_server

        with llama_server(base, port=port, slots=slots, threads=threads) as url:
            typer.echo(f"{url} answers {slots} requests at once; stop it with Ctrl-C")
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            os._exit(0)  # llama.cpp would first finish the replies under way, which nobody waits for any more.
