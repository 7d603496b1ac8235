"""A table with one row a recording: CSV, TSV, JSON or JSONL, its columns mapped by corpus.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.about import ABOUT, About, read_about, recording_of
from data_builders.corpora.base import Corpus, Recording, Report, each
from data_builders.corpora.rows import Row, csv_rows, json_rows, jsonl_rows
from lalm.errors import DataError


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    about = read_about(folder)
    tables = sorted({path for pattern in about.tables for path in folder.glob(pattern)})
    if not tables:
        raise DataError(f"{folder}: no table matches {', '.join(about.tables)}. Name them in {ABOUT}: tables: [...]")
    for path in tables:
        yield from each(_rows(path, about, report), partial(recording_of, about=about, folder=folder), report)


def _rows(path: Path, about: About, report: Report) -> Iterator[Row]:
    form = path.name.removesuffix(".gz").rpartition(".")[2]
    if form in ("csv", "tsv"):
        needed = {about.column("audio"), *about.columns.values()}
        return csv_rows(path, sorted(needed), report, delimiter="\t" if form == "tsv" else ",", quoted=form == "csv")
    if form in ("json", "jsonl"):
        return (json_rows if form == "json" else jsonl_rows)(path, report)
    raise DataError(f"{path}: cannot read '.{form}' tables. Accepted: .csv, .tsv, .json, .jsonl, also with .gz.")


CORPUS = Corpus(
    name="table",
    kind="generic",
    licence="unknown",
    homepage="",
    download="A table and its audio; corpus.yaml maps columns to facts.",
    layout=(),
    read=_read,
)
