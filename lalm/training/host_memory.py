"""Memory of the host that a CPU run has once had it keeps: asking the system for each large tensor anew is slow.

glibc maps every allocation above 32 MB afresh and unmaps it when it is freed, so that each such tensor of each step is
filled by the system, page by page, before it is used. In training the same sizes come back step after step.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt (malloc.h)."""
NEVER_BYTES = 2**31 - 1
GROW_BYTES = 16 * 2**20


def keep_host_memory() -> bool:
    """From now on freed memory stays with this process. False where the C library is not glibc: nothing changes."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_BYTES), (M_TOP_PAD, GROW_BYTES))
    return all([library.mallopt(parameter, value) == 1 for parameter, value in settings])
