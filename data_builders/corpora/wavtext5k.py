"""WavText5K: 4,525 sounds of BigSoundBank and SoundBible with titles, most with descriptions, some with tags.

Source: Deshmukh, Elizalde, Wang, "Audio Retrieval with WavText5K and CLAP Training", Interspeech 2023.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        stem = Path(row.text("fname")).stem
        try:
            tags = ast.literal_eval(row.maybe("tags") or "[]")
            labels = tuple(label_of(tag) for tag in tags)
        except (ValueError, SyntaxError, TypeError, AttributeError):
            raise BadRow("tags", f"'{row.text('tags')[:40]}' is not a list") from None
        return Recording(
            id=stem,
            audio=Audio(one_of(folder / "WavText5K", (stem,), "fname")),
            captions=(row.maybe("description") or row.text("title"),),
            labels=labels,
            extra={"title": row.maybe("title")},
        )

    return each(
        csv_rows(folder / "WavText5K.csv", ("title", "description", "fname", "tags"), report), recording, report
    )


CORPUS = Corpus(
    name="wavtext5k",
    kind="sound",
    licence="MIT (table; the sounds are their sites')",
    homepage="https://github.com/microsoft/WavText5K",
    download="WavText5K.csv, and the sounds in WavText5K, as the repository's process.py puts them.",
    layout=("WavText5K.csv", "WavText5K"),
    read=_read,
)
