"""Clotho-AQA: six questions on each of 1,991 clips of Clotho, each answered by three people. The answer of most
counts; a question on which all three differ is left out.

Source: Lipping, Sudarsanam, Drossos, Virtanen, "Clotho-AQA", EUSIPCO 2022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows, grouped


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(rows: list[Row]) -> Recording:
        path = inside(folder / "audio_files", rows[0].text("file_name"), "file_name")
        asked: dict[str, Counter[str]] = {}
        for row in rows:
            asked.setdefault(row.text("QuestionText"), Counter())[row.text("answer").lower()] += 1
        agreed = {question: counts.most_common(1)[0] for question, counts in asked.items()}
        return Recording(
            id=f"{rows[0].path.stem.rpartition('_')[2]}-{path.stem}",
            audio=Audio(path),
            split=split_named(rows[0].path.stem.rpartition("_")[2]),
            exchanges=tuple((question, answer) for question, (answer, count) in agreed.items() if count >= 2),
            extra={"answers": {question: dict(counts) for question, counts in asked.items()}},
        )

    for part in ("train", "val", "test"):
        path = folder / f"clotho_aqa_{part}.csv"
        if path.is_file():
            rows = csv_rows(path, ("file_name", "QuestionText", "answer"), report)
            yield from each(grouped(rows, "file_name"), recording, report)


CORPUS = Corpus(
    name="clotho_aqa",
    kind="sound",
    licence="MIT (questions; clips CC)",
    homepage="https://zenodo.org/records/6473207",
    download="clotho_aqa_{train,val,test}.csv, and the clips in audio_files.",
    layout=("clotho_aqa_*.csv", "audio_files"),
    read=_read,
)
