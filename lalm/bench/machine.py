"""The machine that is measured on: its name, its fastest matrix product, and the memory that a process has used."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lalm.model.gpus import DENSE_BFLOAT16

MATRIX_SIZES = ((1024, 1024, 1024), (2048, 576, 1536), (2048, 2048, 2048))
GPU_MATRIX_SIZES = ((4096, 4096, 4096), (8192, 8192, 8192))
TIMED_CALLS = 8
STATUS = Path("/proc/self/status")
CLEAR_REFS, RESET_PEAK = Path("/proc/self/clear_refs"), "5"
SAMPLED_SECONDS = 0.02
"""Between two looks at the memory that is allocated."""


def device_name() -> str:
    """What computes here, with its threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {torch.get_num_threads()} threads"


def datasheet_flops_per_second() -> float | None:
    """The maker's figure for this GPU in bfloat16, of which MFU is a share; None without a GPU, or for one that is not
    in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in DENSE_BFLOAT16.items() if part in name), None)


def synchronize() -> None:
    """Waits until the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def mark() -> torch.cuda.Event | float:
    """A moment: among the GPU's work, where there is one, else of this process. Waits for nothing."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(begun: torch.cuda.Event | float, ended: torch.cuda.Event | float) -> float:
    """Between two moments of one kind. Waits until a GPU has come to the second."""
    if isinstance(begun, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        ended.synchronize()
        return begun.elapsed_time(ended) / 1000
    assert isinstance(begun, float)
    assert isinstance(ended, float)
    return ended - begun


def matrix_flops_per_second(dtype: torch.dtype) -> float:
    """The most that any of some matrix products reaches here, best of several calls each.

    Best-of, because another job on the machine can only make a product slower.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for rows, inner, columns in GPU_MATRIX_SIZES if device == "cuda" else MATRIX_SIZES:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(inner, columns, device=device).to(dtype)
        best = max(best, 2 * rows * inner * columns / best_seconds(partial(torch.matmul, left, right)))
    return best


def best_seconds(call: Callable[[], Any]) -> float:
    """The shortest of `TIMED_CALLS` calls."""
    best = float("inf")
    for _ in range(TIMED_CALLS):
        synchronize()
        started = time.perf_counter()
        call()
        synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def peak_memory_bytes() -> int:
    """The most memory that this process has held: of the GPU where there is one, else resident.

    `ru_maxrss` is only the fallback: on Linux a process inherits it from the one that started it.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Lets `peak_memory_bytes` begin anew: what building a model took for a moment is no part of a step."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_REFS.exists():
        with contextlib.suppress(OSError):  # Some containers forbid it; the peak then includes building.
            CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")


def give_back_memory() -> None:
    """Hands what this process no longer uses to the system, so that the next side finds it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


def status_bytes(key: str) -> int:
    """A line of `/proc/self/status` (VmHWM, VmRSS, RssAnon), in bytes; 0 where there is none."""
    if not STATUS.is_file():
        return 0
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


class AllocatedPeak:
    """The most memory that a process allocates within the block, sampled; mapped files are not counted.

    with AllocatedPeak() as memory:
        ...
    memory.grown_bytes, memory.kept_bytes    # over what it held before: at most, and at the end
    """

    def __enter__(self) -> AllocatedPeak:
        gc.collect()
        self.before = self._most = status_bytes("RssAnon")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLED_SECONDS):
            self._most = max(self._most, status_bytes("RssAnon"))

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        now = status_bytes("RssAnon")
        self.grown_bytes, self.kept_bytes = max(self._most, now) - self.before, max(0, now - self.before)


def load_average() -> float | None:
    """Processes that wanted a core over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def report_matrix_peak(dtypes: tuple[str, ...], pace: Any) -> None:
    """A side of a measurement: the machine's name and its fastest matrix product in each type."""
    pace.wait()
    peaks = {name: matrix_flops_per_second(getattr(torch, name)) for name in dtypes}
    pace.done(
        {
            "device": device_name(),
            "matrix_flops_per_second": peaks,
            "load_average": load_average(),
            "has_gpu": torch.cuda.is_available(),
            "datasheet_flops_per_second": datasheet_flops_per_second(),
        }
    )
