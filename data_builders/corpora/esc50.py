"""ESC-50: 2,000 five-second recordings of 50 classes, as the repository is laid out; fold 5 is the test split.

Source: Piczak, "ESC: Dataset for Environmental Sound Classification", ACM MM 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows

TEST_FOLD = "5"


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        path = inside(folder / "audio", row.text("filename"), "filename")
        return Recording(
            id=path.stem,
            audio=Audio(path),
            split="test" if row.text("fold") == TEST_FOLD else "train",
            group=f"freesound-{row.text('src_file')}",
            labels=(row.text("category").replace("_", " "),),
        )

    columns = ("filename", "fold", "category", "src_file")
    return each(csv_rows(folder / "meta/esc50.csv", columns, report), recording, report)


CORPUS = Corpus(
    name="esc50",
    kind="sound",
    licence="CC-BY-NC-3.0",
    homepage="https://github.com/karolpiczak/ESC-50",
    download="Clone or unpack the repository.",
    layout=("meta/esc50.csv", "audio"),
    read=_read,
    isolated=True,
)
