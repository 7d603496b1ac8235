"""A language model in a GGUF file, as a transformers folder in the cache. Imports transformers only to convert one."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lalm.resources import cache_folder, file_fingerprint


def gguf_file(found: Path) -> Path | None:
    """The GGUF file that a base's path is or holds; None where there is none."""
    return found if found.suffix == ".gguf" else next(iter(sorted(found.glob("*.gguf"))), None)


def converted_folder(gguf: Path) -> Path:
    """Where `converted` puts a file's model."""
    return cache_folder() / "converted" / f"{gguf.stem}-{file_fingerprint(gguf)[:12]}"


def is_converted(gguf: Path) -> bool:
    """Whether the folder is there."""
    return (converted_folder(gguf) / "config.json").is_file()


def converted(gguf: Path) -> Path:
    """A GGUF file as a transformers folder in bfloat16, made once.

    transformers 5 refuses to save a model that was read from GGUF, so its tensors go into a fresh model.
    """
    folder = converted_folder(gguf)
    if is_converted(gguf):
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _read_once(), torch.device("cpu"):  # also where a model without weights is being made
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = AutoModelForCausalLM.from_config(config)
    fresh.load_state_dict(loaded.state_dict(), strict=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        fresh.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads a file's head for the configuration, the tokenizer and the weights, 4 s each."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = reader  # type: ignore[misc]
