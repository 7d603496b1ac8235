"""SoundDescs: 32,979 BBC Sound Effects with the archive's descriptions, from seconds to minutes. The published
descriptions are pickled, and pickles are not read: the same texts stand in the BBC's own table. Ids are small letters
in the lists of the splits and large ones in the files.

Source: Koepke et al., "Audio Retrieval with Natural Language Queries: A Benchmark Study", TMM 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.clips import Split
from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import split_named
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, csv_rows, field_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    splits: dict[str, Split | None] = {}
    for part in ("train", "val", "test"):
        for row in field_rows(folder / f"{part}_list.txt", ("id",), None, report):
            splits[row.text("id").lower()] = split_named(part)

    def recording(row: Row) -> Recording | None:
        stem = Path(row.text("location")).stem
        if stem.lower() not in splits:
            return None
        return Recording(
            id=stem,
            audio=Audio(one_of(folder / "audio", (stem, stem.upper()), "location"), seconds=row.number("secs")),
            split=splits[stem.lower()],
            captions=(row.text("description"),),
            labels=tuple(part.strip().lower() for part in (row.maybe("category") or "").split(":") if part.strip()),
        )

    return each(
        csv_rows(folder / "BBCSoundEffects.csv", ("location", "description", "secs"), report), recording, report
    )


CORPUS = Corpus(
    "sounddescs", "sound", "RemArc (non-commercial)", "https://github.com/akoepke/audio-retrieval-benchmark",
    "train_list.txt, val_list.txt, test_list.txt of the repository's data/SoundDescs, BBCSoundEffects.csv of "
    "sound-effects.bbcrewind.co.uk, and the sounds in audio.",
    ("train_list.txt", "val_list.txt", "test_list.txt", "BBCSoundEffects.csv", "audio"), _read,
)  # fmt: skip
