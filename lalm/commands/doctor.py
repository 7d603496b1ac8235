"""`lalm doctor`: what this machine has, and whether a run still is what it was when it was saved."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from lalm.tables import print_table, table_console

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "soundfile",
    "soxr",
    "av",
)
OPTIONAL_PACKAGES = (
    "datasets",
    "jiwer",
    "scikit-learn",
    "matplotlib",
    "tensorboard",
    "deepspeed",
    "bitsandbytes",
    "sounddevice",
)
MATRIX_SIZE = 768
TIMED_CALLS = 5

Row = tuple[str, str]


def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Also check the seals of this run.")] = None,
) -> None:
    """Show what this machine has; with RUN, check its base models' fingerprints and its sealed logits."""
    from rich.table import Table

    console = table_console()
    table = Table("what", "here", title="This machine", title_justify="left")
    for rows in (machine_rows(), package_rows(), device_rows(), tool_rows(), model_rows()):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    print_table(console, table)
    if run is not None and not print_seals(run, console):
        raise typer.Exit(1)


def print_seals(run: Path, console) -> bool:
    """Prints each seal of a run, and returns whether all hold."""
    from rich.table import Table

    from lalm.model.checkpoint import verify_seals

    checks = verify_seals(run)
    table = Table("seal", "holds", "detail", title=str(run), title_justify="left")
    for name, holds, detail in checks:
        table.add_row(name, "yes" if holds else "[bold red]NO[/bold red]", detail)
    print_table(console, table)
    return all(holds for _, holds, _ in checks)


def machine_rows() -> Iterator[Row]:
    """System, cores, memory and disk."""
    from lalm.resources import cache_folder

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield "cores", str(cores)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        page, gib = os.sysconf("SC_PAGE_SIZE"), 2**30
        total, free = (os.sysconf(name) * page / gib for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        yield "memory", f"{total:.1f} GiB, {free:.1f} GiB unused"
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    yield "disk", f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free for the cache in {folder}"


def package_rows() -> Iterator[Row]:
    """Versions of the libraries that are needed, and of those that some commands use."""
    for name in (*PACKAGES, *OPTIONAL_PACKAGES):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield (
                name,
                "not installed (optional)" if name in OPTIONAL_PACKAGES else "[bold red]not installed[/bold red]",
            )


def device_rows() -> Iterator[Row]:
    """Threads, GPU, and how much faster bfloat16 is than float32 here."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    yield "torch threads", str(torch.get_num_threads())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
        device = "cuda"
    else:
        yield "GPU", "none"
        device = "cpu"
    single, half = (matrix_seconds(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    yield "bfloat16", f"{single / half:.1f} times the speed of float32 ({device}, {MATRIX_SIZE} squared)"


def matrix_seconds(dtype, device: str) -> float:
    """Seconds of the fastest of some products of two square matrices."""
    import torch

    left = torch.ones(MATRIX_SIZE, MATRIX_SIZE, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(TIMED_CALLS):
        started = time.perf_counter()
        left @ left
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def tool_rows() -> Iterator[Row]:
    """Programs that fetch base models and recordings."""
    has_pip = importlib.util.find_spec("pip") is not None
    yield "pip", "yes" if has_pip else f"no: {sys.executable} -m ensurepip"
    yield "apt-get", shutil.which("apt-get") or "no: `lalm data fetch` needs it; the Docker image has it"


def model_rows() -> Iterator[Row]:
    """Which packaged base models are in the cache."""
    from lalm.resources import PACKAGE_MODELS, cache_folder

    for name in PACKAGE_MODELS:
        folder = cache_folder() / "models" / name
        yield f"package:{name}", "here" if (folder / "source.json").is_file() else f"not here: lalm models fetch {name}"
