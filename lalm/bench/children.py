"""Sides of a measurement in processes of their own: each has its own peak of memory, and only one works at a time.

with Side("ours", OurRun(...)) as side:
    side.next()         # lets it do its next piece, and returns what it measured
    side.peak_memory    # of its process, so far
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.context
import os
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import torch

from lalm.bench.machine import forget_peak, give_back_memory, peak_memory_bytes
from lalm.errors import TrainingError

KINDS = {
    "ours": "lalm.bench.ours:run_ours",
    "salmonn": "lalm.bench.peer_salmonn:run_salmonn",
    "granite_speech": "lalm.bench.peer_transformers:run_granite_speech",
    "qwen2_audio": "lalm.bench.peer_transformers:run_qwen2_audio",
    "matrix_peak": "lalm.bench.machine:report_matrix_peak",
    "products": "lalm.bench.bound:time_products",
    "loader": "lalm.bench.growth:run_loader",
    "stream": "lalm.bench.loader:run_stream",
}
"""A function of (run, pace) for each kind of side."""
LARGE = ("salmonn", "granite_speech", "qwen2_audio")
"""Sides that hand their memory back after a piece, for the next one to find. Ours holds little, and its short steps
would be a tenth slower for it (measured)."""
SIDE_MODULES = [__name__, *dict.fromkeys(place.partition(":")[0] for place in KINDS.values())]
"""What a side is forked from; this module is read first."""
LAST_WORDS_SECONDS = 10

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # It warns of kernels that it lacks, at each import.


class Side:
    """A child process that runs one side, piece by piece.

    Args:
        kind: one of `KINDS`.
        run: what to run; is sent to the process.
    """

    def __init__(self, kind: str, run: Any):
        self.kind, self.peak_memory, self.is_ready = kind, 0, False
        context = _context()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, kind), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.send((run, dict(os.environ)))
        self._await_rest()

    def next(self) -> dict[str, Any]:
        """Lets the side do its next piece and waits for its result, and until it rests again.

        Raises:
            TrainingError: if the side fails or has nothing left to do; its traceback is in the message.
        """
        if not self.is_ready:
            raise TrainingError(f"bench: '{self.kind}' has done all its pieces")
        self.connection.send("go")
        result = self._receive()
        self.peak_memory = result.pop("peak_memory")
        self._await_rest()
        return result

    def _await_rest(self) -> None:
        """Until the side waits for the next piece, or has ended: no other may be measured meanwhile."""
        self.is_ready = self._receive() == "ready"

    def _receive(self) -> Any:
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(LAST_WORDS_SECONDS)
            raise TrainingError(
                f"bench: the process of '{self.kind}' ended early (exit status {self.process.exitcode}). A negative "
                "status is a signal: with -9 the machine most likely ran out of memory."
            ) from None
        if "error" in message:
            raise TrainingError(f"bench: '{self.kind}' failed:\n{message['error']}")
        return message

    def close(self) -> None:
        """Ends the process: one that rests goes by itself, and takes its files with it."""
        self.connection.close()
        self.process.join(LAST_WORDS_SECONDS)
        self.process.terminate()
        self.process.join()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _context() -> multiprocessing.context.BaseContext:
    """How sides are started: a process forked from this one would begin with its memory and its threads' locks.

    Forked from one that has read torch and transformers and done nothing, it starts at once. Where there is a GPU it is
    a fresh interpreter, which takes seconds: reading some libraries asks for the GPU, which a fork then cannot use.
    """
    if torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SIDE_MODULES)
    return context


class _PipePace:
    def __init__(self, connection: Connection, *, gives_back: bool):
        self.connection, self.has_begun, self.gives_back = connection, False, gives_back

    def wait(self) -> None:
        if not self.has_begun:
            forget_peak()
        self.has_begun = True
        self.connection.send("ready")
        self.connection.recv()

    def done(self, result: dict[str, Any]) -> None:
        result["peak_memory"] = peak_memory_bytes()
        if self.gives_back:
            give_back_memory()
        self.connection.send(result)


def _serve(connection: Connection, kind: str) -> None:
    try:
        run, environment = connection.recv()
        os.environ.update(environment)  # Of a forked one it is that of the process it was forked from,
        tempfile.tempdir = None  # and so is what was made of it.
        find_side(kind)(run, _PipePace(connection, gives_back=kind in LARGE))
        connection.send("end")
    except EOFError:
        return  # Nobody wants another piece.
    except Exception:
        connection.send({"error": traceback.format_exc()})


def find_side(kind: str) -> Callable[[Any, Any], None]:
    """The function that runs a kind of side."""
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)
