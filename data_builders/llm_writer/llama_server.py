"""llama.cpp's own OpenAI-compatible server in this process, out of the package `xllamacpp`, on a GGUF file.

What a stranger has at hand in two lines, and what the tests call real: the C++ server with its batching over several
slots, and grammars made from JSON schemas.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lalm.errors import DataError, MissingPackageError, ModelError
from lalm.resources import find_base

HOST = "127.0.0.1"
SLOT_POSITIONS = 2048
"""Positions of the context for each request that is answered at once: prompt and reply."""


@contextmanager
def llama_server(base: str, *, port: int, slots: int = 4, threads: int = 2) -> Iterator[str]:
    """Serves until the block ends, and gives the base URL to ask at.

    Args:
        base: a `.gguf` file, a folder that holds one, or `package:NAME`.
        port: on the loopback address, the only one that is served.
        slots: requests answered at once; more wait.

    Raises:
        MissingPackageError: without xllamacpp.
        ModelError: if there is no such base, or it holds no GGUF file.
        DataError: if the port is taken or the server does not start.
    """
    weights = gguf_of(base)
    try:
        import xllamacpp
    except ImportError:
        raise MissingPackageError("xllamacpp", "running llama.cpp's server", "llamacpp") from None
    if not _is_free(port):
        raise DataError(f"--port {port}: something listens there already. Give another.")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {weights.stem}
    params.hostnames, params.port = [HOST], port
    params.n_parallel, params.n_ctx = slots, slots * SLOT_POSITIONS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui, params.verbosity = False, 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise DataError(f"llama.cpp's server does not start with {weights}: {error}") from None
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # Its destructor stops the threads and closes the port.


def gguf_of(base: str) -> Path:
    """The GGUF file of a base: a file, a folder that holds one, or `package:NAME`.

    Raises:
        ModelError: if there is no such base, or the folder holds none or several.
    """
    found = find_base(base)
    if isinstance(found, str):
        raise ModelError(
            f"base '{base}': no such file or folder. Give a .gguf file, a folder with one, or package:NAME."
        )
    files = [found] if found.is_file() else sorted(found.glob("*.gguf"))
    if len(files) != 1:
        raise ModelError(f"base '{base}' holds {len(files)} GGUF files; llama.cpp's server needs one. Name the file.")
    return files[0]


def _is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
