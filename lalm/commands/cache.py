"""`lalm cache`: what the cache folder holds, and emptying a part of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from lalm.tables import print_table, table_console

PARTS = {
    "plans": "what `lalm check` counted",
    "models": "base models taken out of packages",
    "converted": "base models in the form that transformers loads",
    "states": "what frozen encoders made of clips",
    "clips": "lengths and checksums of clips",
    "corpora": "fetched Debian packages and their recordings",
    "fingerprints.json": "checksums of base models",
}


def cache(
    clear: Annotated[str | None, typer.Option(metavar="PART", help="Delete this part of the cache.")] = None,
) -> None:
    """Show what is cached and how large it is. Everything in the cache can be made again."""
    from rich.table import Table

    from lalm.errors import LalmError
    from lalm.resources import cache_folder

    folder, console = cache_folder(), table_console()
    found = {path.name: path for path in sorted(folder.glob("*"))} if folder.is_dir() else {}
    if clear is not None:
        if clear not in found:
            raise LalmError(f"--clear {clear}: {folder} has no such part. It has: {', '.join(found) or 'nothing'}.")
        freed = folder_bytes(found[clear])
        shutil.rmtree(found[clear]) if found[clear].is_dir() else found[clear].unlink()
        console.print(f"Deleted {found[clear]}: {freed / 2**20:.1f} MiB", highlight=False)
        return
    table = Table("part", "what it is")
    table.add_column("MiB", justify="right")
    for name, path in found.items():
        table.add_row(name, PARTS.get(name, ""), f"{folder_bytes(path) / 2**20:.1f}")
    console.print(f"{folder} (set LALM_CACHE to use another)", highlight=False)
    print_table(console, table)


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files under a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.lstat(Path(root) / name).st_size for root, _, names in os.walk(path) for name in names)
