"""FLEURS: the same sentences read in 102 languages, so that every recording has its translation into English. Tables
have no header; a sentence keeps its id in all languages, and stays in one split of a set.

Source: Conneau et al., "FLEURS: Few-shot Learning Evaluation of Universal Representations of Speech", SLT 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import language_named, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows

COLUMNS = ("id", "file_name", "raw_transcription", "transcription", "characters", "num_samples", "gender")
PARTS = ("train", "dev", "test")
RATE_HZ = 16_000


def _rows(path: Path, report: Report) -> Iterator[Row]:
    return csv_rows(path, COLUMNS, report, names=COLUMNS, delimiter="\t", quoted=False)


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    english: dict[str, str] = {}
    for part in PARTS:
        for table in folder.glob(f"en_us/{part}.tsv"):
            english.update((row.text("id"), row.text("raw_transcription")) for row in _rows(table, report))
    for table in sorted(path for part in PARTS for path in folder.glob(f"*/{part}.tsv")):
        yield from each(_rows(table, report), partial(_recording, english=english), report)


def _recording(row: Row, english: dict[str, str]) -> Recording:
    folder, part = row.path.parent, row.path.stem
    path = inside(folder / "audio" / part, row.text("file_name"), "file_name")
    language, sentence = language_named(folder.name), row.text("id")
    translations = {"English": english[sentence]} if sentence in english and language != "English" else {}
    return Recording(
        f"{folder.name}-{part}-{path.stem}", Audio(path, seconds=row.number("num_samples") / RATE_HZ),
        split_named(part),
        group=f"sentence-{sentence}", transcript=row.text("raw_transcription"), translations=translations,
        language=language, sex=row.text("gender").lower(),
    )  # fmt: skip


CORPUS = Corpus(
    "fleurs", "speech", "CC-BY-4.0", "https://huggingface.co/datasets/google/fleurs",
    "Folders of languages (en_us, it_it, ...) with train.tsv, dev.tsv, test.tsv and audio/train/*.wav, ... unpacked.",
    ("*/*.tsv",), _read,
)  # fmt: skip
