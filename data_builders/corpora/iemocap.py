"""IEMOCAP: ten actors in five sessions of talk, each turn with its words and the emotion that most raters heard. Turns
on which they did not agree ("xxx") or that are something else ("oth") have none. A session is never torn apart.

Source: Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", LRE 2008.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, open_text

EMOTIONS = {
    "ang": "angry", "hap": "happy", "exc": "excited", "sad": "sad", "fru": "frustrated", "fea": "fearful",
    "sur": "surprised", "neu": "neutral", "dis": "disgusted", "xxx": None, "oth": None,
}  # fmt: skip
TURN = re.compile(r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<id>\w+)\t(?P<emotion>\w+)\t")
SAID = re.compile(r"(?P<id>\w+) \[[\d.-]+\]: ?(?P<text>.*)")


def _matches(path: Path, pattern: re.Pattern[str]) -> Iterator[Row]:
    with open_text(path, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if found := pattern.match(line):
                yield Row(path, number, found.groupdict())


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for turns in sorted(folder.glob("Session*/dialog/EmoEvaluation/Ses*.txt")):
        session = turns.parents[2]
        words = session / "dialog/transcriptions" / turns.name
        said = {row.text("id"): row.maybe("text") for row in _matches(words, SAID)} if words.is_file() else {}

        def recording(row: Row, session: Path = session, said: dict[str, str | None] = said) -> Recording:
            name, emotion = row.text("id"), row.text("emotion")
            if emotion not in EMOTIONS:
                raise BadRow("emotion", f"'{emotion}' is none of {', '.join(EMOTIONS)}")
            path = inside(session / "sentences/wav" / row.path.stem, f"{name}.wav", "id")
            sex = {"F": "female", "M": "male"}.get(name.rpartition("_")[2][:1])
            return Recording(
                name, Audio(path, seconds=row.number("end") - row.number("start")), group=session.name,
                transcript=said.get(name), language="English", speaker=f"{name[:5]}{name.rpartition('_')[2][:1]}",
                sex=sex, emotion=EMOTIONS[emotion],
            )  # fmt: skip

        yield from each(_matches(turns, TURN), recording, report)


CORPUS = Corpus("iemocap", "speech", "IEMOCAP licence (research, on request)", "https://sail.usc.edu/iemocap/",
                "IEMOCAP_full_release, on request.", ("Session*/dialog/EmoEvaluation",), _read)  # fmt: skip
