"""LibriSpeech: 1,000 hours of read English. Transcripts are upper case without punctuation; they are told in lower
case.

Source: Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, field_rows

SPEAKERS = ("id", "sex", "subset", "minutes", "name")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    sexes = {
        row.text("id"): {"M": "male", "F": "female"}.get(row.text("sex"))
        for row in field_rows(folder / "SPEAKERS.TXT", SPEAKERS, "|", report)
    }

    def recording(row: Row) -> Recording:
        name, subset = row.text("id"), row.path.relative_to(folder).parts[0]
        speaker = name.partition("-")[0]
        return Recording(
            id=name,
            audio=Audio(inside(row.path.parent, f"{name}.flac", "id")),
            split=split_named(subset.partition("-")[0]),
            group=f"speaker-{speaker}",
            transcript=row.text("text").lower(),
            language="English",
            speaker=speaker,
            sex=sexes.get(speaker),
        )

    for subset in sorted(path for path in folder.iterdir() if path.is_dir()):
        for speaker in sorted(subset.iterdir()):
            for path in sorted(speaker.glob("*/*.trans.txt")):
                yield from each(field_rows(path, ("id", "text"), None, report), recording, report)


CORPUS = Corpus(
    name="librispeech",
    kind="speech",
    licence="CC-BY-4.0",
    homepage="https://www.openslr.org/12",
    download="The archives unpacked; name the folder LibriSpeech that holds SPEAKERS.TXT.",
    layout=("SPEAKERS.TXT", "*/*/*/*.trans.txt"),
    read=_read,
)
