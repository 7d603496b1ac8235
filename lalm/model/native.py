"""C++ of ours, compiled when it is first needed by the compiler that `torch.compile` uses, into the same cache.

A file of C++ has an `extern "C" int works()` that tries on this machine what the others need.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path


@functools.cache
def library(source: Path) -> ctypes.CDLL:
    """The library of a file: some seconds on a machine's first use."""
    from torch._inductor.codecache import CppCodeCache  # seconds of imports that nothing else here needs

    return CppCodeCache.load(source.read_text(encoding="utf-8"))


@functools.cache
def why_no_library(source: Path) -> str | None:
    """Why a file's functions cannot be had on this machine; None where they can. It is compiled to find out."""
    try:
        works = library(source).works()
    except Exception as error:  # whatever the compiler's tools raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{source.name} does not compile here ({type(error).__name__}: {lines[0] if lines else ''})"
    return None if works else f"this torch or this processor lacks what {source.name} needs"
