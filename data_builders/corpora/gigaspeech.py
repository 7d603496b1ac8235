"""GigaSpeech: 10,000 hours of audio books, podcasts and YouTube, as parts of long Opus files named by one JSON of
gigabytes, read entry by entry. Punctuation is spelled as tags; segments that are no speech (<SIL>, <MUSIC>) are left
out.

Source: Chen et al., "GigaSpeech: An Evolving, Multi-domain ASR Corpus", Interspeech 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, json_rows

MARKS = {" <COMMA>": ",", " <PERIOD>": ".", " <QUESTIONMARK>": "?", " <EXCLAMATIONPOINT>": "!"}
NO_SPEECH = ("<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        begin, end, text = row.number("begin_time"), row.number("end_time"), row.text("text_tn")
        if not 0 <= begin < end:
            raise BadRow("end_time", f"the segment from {begin:g} to {end:g} s has no length")
        if text in NO_SPEECH:
            raise BadRow("text_tn", f"{text} is no speech", harmless=True)
        for tag, mark in MARKS.items():
            text = text.replace(tag, mark)
        subsets = {str(subset).strip("{}") for subset in row.texts("subsets")}
        return Recording(
            id=row.text("sid"),
            audio=Audio(inside(folder, row.text("path"), "path"), start=begin, seconds=end - begin, is_part=True),
            split="validation" if "DEV" in subsets else "test" if "TEST" in subsets else "train",
            group=row.text("aid"),
            transcript=text[:1] + text[1:].lower(),
            language="English",
            extra={"subsets": sorted(subsets)},
        )

    for entry in json_rows(folder / "GigaSpeech.json", report, under="audios"):
        shared: dict[str, Any] = {key: entry.values.get(key) for key in ("aid", "path", "subsets")}
        rows = (Row(entry.path, entry.line, {**shared, **part}) for part in entry.values.get("segments") or ())
        yield from each(rows, recording, report)


CORPUS = Corpus("gigaspeech", "speech", "GigaSpeech terms (research, on request); Apache-2.0 (metadata)",
                "https://github.com/SpeechColab/GigaSpeech", "GigaSpeech.json and audio/, on request.",
                ("GigaSpeech.json",), _read)  # fmt: skip
