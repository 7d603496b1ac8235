"""What a labelled corpus is: its name, licence and layout, and a stream of recordings with typed labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lalm.errors import DataError


@dataclass(frozen=True)
class LabelledClip:
    """One recording of a corpus with what its authors say about it; `path` lies inside the corpus folder."""

    id: str
    path: Path
    split: str
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """One corpus. `layout` names the files that must be there; `read` streams (folder, report of a bad row)."""

    name: str
    kind: str
    licence: str
    url: str
    layout: tuple[str, ...]
    read: Callable[[Path, Callable[[str], None]], Iterator[LabelledClip]]

    def clips(self, folder: Path, report: Callable[[str], None]) -> Iterator[LabelledClip]:
        """Streams the corpus; `report` is given the problem of each row that is left out.

        Raises:
            DataError: where a part of the layout is missing, with the layout that is expected.
        """
        missing = [name for name in self.layout if not (folder / name).exists()]
        if missing:
            expected = "\n  ".join(self.layout)
            raise DataError(f"{folder}: is not {self.name}: no {', '.join(missing)}. Expected:\n  {expected}")
        seen: set[str] = set()
        for clip in self.read(folder, report):
            if clip.id in seen:
                report(f"{folder}: the id '{clip.id}' stands twice; the first is kept")
                continue
            seen.add(clip.id)
            yield clip


def csv_rows(
    path: Path, columns: tuple[str, ...], report: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) of every row that fills each of `columns`.

    Raises:
        DataError: if the header lacks one of `columns`.
    """
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: the column(s) {missing} are missing. Needed: {', '.join(columns)}.")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            empty = [name for name in columns if not (row[name] or "").strip()]
            if empty:
                report(f"{where}: the column '{empty[0]}' is empty")
                continue
            yield where, row


def audio_inside(folder: Path, name: str, where: str, report: Callable[[str], None]) -> Path | None:
    """The file `name` of `folder`; None, reported, where it is missing or the name leads out of the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        report(f"{where}: '{name}' leads out of {folder}")
    elif not path.is_file():
        report(f"{where}: no audio file '{name}' in {folder}")
    else:
        return path
    return None
