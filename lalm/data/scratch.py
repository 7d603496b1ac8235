"""Memory that lives on the disk: large arrays of a plan, and files that a process needs only while it runs.

Mapped pages belong to the file, so the system can take them back; what a program allocates it cannot. All of it is
below `<cache>/scratch` and goes when its owner goes. What a killed process leaves is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from lalm.errors import DataError
from lalm.resources import cache_folder

IN_MEMORY_BYTES = 2**16
"""Arrays up to this are ordinary ones."""
_LOCK = ".lock"


def scratch_array(length: int, dtype: Any) -> np.ndarray:
    """An array [length] whose content does not matter yet; on the disk if it is large. The file has no name, so it
    goes with the array.

    Raises:
        DataError: if the disk has no room for it.
    """
    size = length * np.dtype(dtype).itemsize
    if size <= IN_MEMORY_BYTES:
        return np.empty(length, dtype)
    folder = _root()
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            # A mapped file with holes would end the process by a signal when the disk is full.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise DataError(f"{folder}: no room for {size} bytes ({error.strerror}). Free some, or set LALM_CACHE to "
                            "another disk.") from None  # fmt: skip
        return np.asarray(np.memmap(file, dtype, mode="r+", shape=(length,)))


class ScratchFolder:
    """A folder of this process's own, removed with the object or at the end of the process (not of a forked one)."""

    def __init__(self) -> None:
        root = _root()
        with (root / _LOCK).open("wb") as guard:
            # One process at a time: a folder that is made but not yet locked would pass for a dead process's.
            fcntl.flock(guard, fcntl.LOCK_EX)
            _sweep(root)
            self.path = Path(tempfile.mkdtemp(dir=root))
            self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._remove = weakref.finalize(self, _remove, self.path, self._lock, os.getpid())


def _root() -> Path:
    folder = cache_folder() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _sweep(root: Path) -> None:
    """Removes folders whose owner is gone: nobody holds their lock."""
    for lock in root.glob(f"*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
