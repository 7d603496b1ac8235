"""Clotho 2.1: 15 to 30 s of freesound with five captions each. Its "development" split is for training; the metadata is
in Latin-1, and some of its sound ids are "Not found".

Source: Drossos, Lipping, Virtanen, "Clotho: An Audio Captioning Dataset", ICASSP 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.clips import Split
from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import licence_of
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows

SPLITS: dict[str, Split] = {"development": "train", "validation": "validation", "evaluation": "test"}
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for part, split in SPLITS.items():
        table, told = (folder / f"clotho_{kind}_{part}.csv" for kind in ("captions", "metadata"))
        infos: dict[str, Row] = {}
        if told.is_file():
            infos = {row.text("file_name"): row for row in csv_rows(told, ("file_name",), report, encoding="latin-1")}

        def recording(row: Row, part: str = part, split: Split = split, infos: dict[str, Row] = infos) -> Recording:
            path = inside(folder / part, row.text("file_name"), "file_name")
            info = infos.get(row.text("file_name"), row)
            sound = info.maybe("sound_id") or ""
            return Recording(
                id=f"{part}-{path.stem}",
                audio=Audio(path),
                split=split,
                licence=licence_of(info.maybe("license")),
                group=f"freesound-{sound}" if sound.isdigit() else "",
                captions=tuple(row.text(column) for column in CAPTIONS),
                extra={"keywords": list(info.texts("keywords", ";"))},
            )

        if table.is_file():
            yield from each(csv_rows(table, ("file_name", *CAPTIONS), report), recording, report)


CORPUS = Corpus(
    "clotho", "sound", "Tampere University licence (non-commercial; clips CC)", "https://zenodo.org/records/4783391",
    "clotho_captions_*.csv and clotho_metadata_*.csv; the archives unpacked to development, validation, evaluation.",
    ("clotho_captions_*.csv",), _read,
)  # fmt: skip
