"""Common Voice: sentences read by volunteers, one folder a language. Tables are without quoting: a sentence may begin
with a quotation mark. train, dev and test share no speaker; validated.tsv holds them all again and is not read.

Source: Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus", LREC 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import language_named, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for table in sorted({*folder.glob("*.tsv"), *folder.glob("*/*.tsv")}):
        if split_named(table.stem):
            rows = csv_rows(table, ("client_id", "path", "sentence"), report, delimiter="\t", quoted=False)
            yield from each(rows, partial(_recording, folder=table.parent), report)


def _recording(row: Row, folder: Path) -> Recording:
    name = row.text("path")
    path = inside(folder / "clips", name if "." in name else f"{name}.mp3", "path")
    gender = (row.maybe("gender") or "").partition("_")[0]
    return Recording(
        id=path.stem,
        audio=Audio(path),
        split=split_named(row.path.stem),
        group=row.text("client_id"),
        transcript=row.text("sentence"),
        language=language_named(row.maybe("locale") or folder.name),
        speaker=row.text("client_id"),
        sex=gender if gender in ("male", "female") else None,
        extra={key: row.text(key) for key in ("age", "accents", "accent") if row.maybe(key)},
    )


CORPUS = Corpus(
    name="common_voice",
    kind="speech",
    licence="CC0-1.0",
    homepage="https://commonvoice.mozilla.org/datasets",
    download="The archives of languages unpacked (cv-corpus-*/en, with clips and train.tsv, dev.tsv, test.tsv).",
    layout=(),
    read=_read,
)
