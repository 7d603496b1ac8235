"""A dataset that `datasets` saved (save_to_disk), one or a dictionary of splits, its columns mapped by corpus.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.corpora.about import About, read_about, recording_of
from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import split_named
from data_builders.corpora.rows import Row
from lalm.errors import DataError, MissingPackageError


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    about = read_about(folder)
    parts = [path.parent for path in sorted(folder.glob("**/state.json"))]
    if not parts:
        raise DataError(f"{folder}: holds no dataset. Save one with its save_to_disk({str(folder)!r}).")
    for part in parts:
        yield from each(_rows(part, about), lambda row, part=part: _recording(row, about, folder, part), report)  # type: ignore[misc]


def _recording(row: Row, about: About, folder: Path, part: Path) -> Recording:
    column = about.column("audio")
    value: Any = row.values.get(column)
    if not isinstance(value, dict) or (value.get("bytes") is None and value.get("path") is None):
        raise BadRow(column, "holds no audio")
    split = split_named(part.name) or about.split
    values = {key: item for key, item in row.values.items() if key != column}
    values.setdefault(about.column("split"), split or "")
    name = "-".join((*part.relative_to(folder).parts, f"{row.line - 1:08d}"))
    audio = Audio(part, member=f"{column}:{row.line - 1}")
    return recording_of(Row(row.path, row.line, values), about, folder, audio, name)


def _rows(part: Path, about: About) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise MissingPackageError("datasets", "Reading a saved dataset", "train") from None
    saved = datasets.load_from_disk(str(part)).cast_column(about.column("audio"), datasets.Audio(decode=False))
    for number, values in enumerate(saved, start=1):
        yield Row(part, number, values)


CORPUS = Corpus(
    name="hub",
    kind="generic",
    licence="unknown",
    homepage="https://huggingface.co/docs/datasets",
    download="A dataset saved to disk; nothing is fetched from a hub.",
    layout=("**/state.json",),
    read=_read,
)
