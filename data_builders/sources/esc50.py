"""ESC-50: 2,000 five-second recordings of 50 classes, as the repository is laid out; fold 5 is the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from data_builders.sources.corpus import Corpus, LabelledClip, audio_inside, csv_rows

TEST_FOLD = "5"


def _read(folder: Path, report: Callable[[str], None]) -> Iterator[LabelledClip]:
    for where, row in csv_rows(folder / "meta/esc50.csv", ("filename", "fold", "category"), report):
        path = audio_inside(folder / "audio", row["filename"], where, report)
        if path:
            split = "test" if row["fold"] == TEST_FOLD else "train"
            yield LabelledClip(path.stem, path, split, tags=(row["category"].replace("_", " "),))


CORPUS = Corpus(
    name="esc50",
    kind="sound",
    licence="CC-BY-NC-3.0",
    url="https://github.com/karolpiczak/ESC-50",
    layout=("meta/esc50.csv", "audio"),
    read=_read,
)
