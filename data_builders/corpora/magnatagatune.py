"""MagnaTagATune: 25,863 excerpts of 29 s with 188 tags from the game TagATune; 13 folders 0 to f, of which 0-b are for
training, c for validation, d-f for the test. Excerpts of one track share a group. Some files are empty.

Source: Law et al., "Evaluation of algorithms using games: the case of music tagging", ISMIR 2009.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows

FOLDERS = "0123456789abcdef"
NO_TAGS = ("clip_id", "mp3_path")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        name = row.text("mp3_path")
        place = FOLDERS.find(name[:1])
        if place < 0 or name[1:2] != "/":
            raise BadRow("mp3_path", f"'{name}' does not begin with one of the folders 0 to f")
        path = inside(folder / "audio" if (folder / "audio").is_dir() else folder, name, "mp3_path")
        return Recording(
            id=row.text("clip_id"),
            audio=Audio(path),
            split="train" if place < 12 else "validation" if place == 12 else "test",
            group=path.stem.rsplit("-", 2)[0],
            labels=tuple(column for column, value in row.values.items() if value == "1" and column not in NO_TAGS),
        )

    rows = csv_rows(folder / "annotations_final.csv", NO_TAGS, report, delimiter="\t")
    return each(rows, recording, report)


CORPUS = Corpus(
    name="magnatagatune",
    kind="music",
    licence="CC-BY-NC-SA-3.0",
    homepage="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
    download="annotations_final.csv, and the joined archive unpacked beside it (folders 0 to f).",
    layout=("annotations_final.csv",),
    read=_read,
)
