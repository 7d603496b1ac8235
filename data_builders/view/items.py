"""What the page shows: a seeded sample of the records of a file or folder, and the clips that they may reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_builders.clips import seeded
from lalm.data.records import Record, read_records
from lalm.errors import DataError

SKIPPED = ("rejects.jsonl", "review.jsonl", ".registry.jsonl", "quarantine.jsonl")
"""Files of a set that end like records and hold none."""


@dataclass(frozen=True)
class Item:
    """One record with the name of its file."""

    file: str
    record: Record


def load_items(path: Path, *, sample: int, seed: int) -> tuple[Path, list[Item]]:
    """The folder that clips are served from, and at most `sample` records (0: all) in the order of their files.

    Reservoir sampling: the files are read once, and only the sample is held.

    Raises:
        DataError: if there are no records, or a row is broken.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.jsonl")) if not file.name.endswith(SKIPPED)]
        files += sorted(file for file in path.glob("*.parquet") if not file.name.startswith("shard-"))
        folder = path
    else:
        files, folder = [path], path.parent
    rng = seeded(seed, "view")
    chosen: list[tuple[int, Item]] = []
    count = 0
    for file in files:
        for record in read_records(file):
            place = count if not sample or count < sample else rng.randrange(count + 1)
            if place == len(chosen):
                chosen.append((count, Item(file.name, record)))
            elif place < len(chosen):
                chosen[place] = (count, Item(file.name, record))
            count += 1
    if not chosen:
        raise DataError(f"{path}: holds no records. Name a .jsonl or .parquet file of records, or a folder with some.")
    return folder, [item for _, item in sorted(chosen, key=lambda pair: pair[0])]


def clip_path(folder: Path, item: Item, place: int) -> Path | None:
    """The file of a record's clip; None where there is none, or where it lies outside the folder, links followed."""
    if not 0 <= place < len(item.record.audio):
        return None
    name = item.record.audio[place]
    path = (folder / name).resolve()
    inside = not PurePosixPath(name).is_absolute() and path.is_relative_to(folder.resolve())
    return path if inside and path.is_file() else None
