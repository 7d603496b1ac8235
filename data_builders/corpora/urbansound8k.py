"""UrbanSound8K: 8,732 excerpts of at most 4 s in 10 classes; fold 10 is the test split. Excerpts of one recording share
its freesound id, and a fold never tears one apart.

Source: Salamon, Jacoby, Bello, "A Dataset and Taxonomy for Urban Sound Research", ACM MM 2014.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows

TEST_FOLD = "10"


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        fold = row.text("fold")
        path = inside(folder / "audio", f"fold{fold}/{row.text('slice_file_name')}", "slice_file_name")
        start, end = row.number("start"), row.number("end")
        return Recording(
            id=path.stem,
            audio=Audio(path, seconds=end - start),
            split="test" if fold == TEST_FOLD else "train",
            group=f"freesound-{row.text('fsID')}",
            labels=(label_of(row.text("class")),),
            extra={"foreground": row.maybe("salience") == "1"},
        )

    columns = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "class")
    return each(csv_rows(folder / "metadata/UrbanSound8K.csv", columns, report), recording, report)


CORPUS = Corpus(
    name="urbansound8k",
    kind="sound",
    licence="CC-BY-NC-3.0",
    homepage="https://urbansounddataset.weebly.com/urbansound8k.html",
    download="Unpack UrbanSound8K.tar.gz.",
    layout=("metadata/UrbanSound8K.csv", "audio"),
    read=_read,
    isolated=True,
)
