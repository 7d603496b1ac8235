"""MTG-Jamendo: 55,000 whole tracks with tags of genre, instrument and mood. A row has as many fields as it has tags,
so it is no regular table. The splits share no artist.

Source: Bogdanov et al., "The MTG-Jamendo Dataset for Automatic Music Tagging", ML4MD 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of, split_named
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, field_rows

COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for part in ("train", "validation", "test"):
        path = folder / f"data/splits/split-0/autotagging-{part}.tsv"
        rows = (row for row in field_rows(path, COLUMNS, "\t", report) if row.values["TRACK_ID"] != COLUMNS[0])
        yield from each(rows, partial(_recording, folder=folder, part=part), report)


def _recording(row: Row, folder: Path, part: str) -> Recording:
    stem = row.text("PATH").removesuffix(".mp3")
    path = one_of(folder / "audio", (stem, f"{stem}.low"), "PATH")
    tags: dict[str, list[str]] = {}
    for tag in row.texts("TAGS", "\t"):
        kind, _, name = tag.partition("---")
        tags.setdefault(kind, []).append(label_of(name))
    return Recording(
        id=row.text("TRACK_ID"),
        audio=Audio(path, seconds=row.number("DURATION")),
        split=split_named(part),
        group=row.text("ARTIST_ID"),
        labels=tuple(tags.get("genre", ())),
        instrument=tags["instrument"][0] if len(tags.get("instrument", ())) == 1 else None,
        extra={"tags": tags},
    )


CORPUS = Corpus(
    "mtg_jamendo", "music", "CC (per track; most CC-BY-NC-SA)", "https://github.com/MTG/mtg-jamendo-dataset",
    "The repository's data folder, and the tracks (whole or .low) in audio/00, audio/01, ...",
    ("data/splits/split-0/autotagging-*.tsv", "audio"), _read,
)  # fmt: skip
