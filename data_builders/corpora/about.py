"""What a person says of data without a layout of its own: `corpus.yaml` beside it, which maps columns to facts.

licence: CC-BY-4.0
tables: [meta/*.csv]
audio: clips                 # folder that audio names are relative to
columns: {audio: file, labels: class, captions: text, split: fold}
splits: {"5": test}          # names of theirs; train, dev, test and the like are known
separator: ";"               # between several labels or captions in one cell
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_builders.clips import Split
from data_builders.corpora.base import Audio, BadRow, Recording
from data_builders.corpora.names import language_named, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row
from lalm.errors import DataError

ABOUT = "corpus.yaml"
Fact = Literal[
    *("audio", "id", "split", "licence", "group", "labels", "captions", "transcript", "translation"),
    *("translation_language", "language", "speaker", "sex", "emotion", "instrument", "family", "pitch"),
    *("tempo_bpm", "key", "question", "answer", "start", "end", "seconds"),
]


class About(BaseModel):
    """The mapping; a fact without a column is looked for in the column of its own name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    licence: str = "unknown"
    audio: str = "."
    tables: tuple[str, ...] = ("*.csv", "*.tsv", "*.jsonl")
    columns: dict[Fact, str] = Field(default_factory=dict)
    split: Split | None = None
    """The split of everything, where no column tells it."""
    splits: dict[str, Split | None] = Field(default_factory=dict)
    separator: str = "|"
    language: str | None = None
    """The language of everything, where no column tells it."""

    def column(self, fact: Fact) -> str:
        return self.columns.get(fact, fact)


def read_about(folder: Path) -> About:
    """The mapping of a folder; the defaults where it has none.

    Raises:
        DataError: for a file that is not such a mapping, with every problem.
    """
    path = folder / ABOUT
    if not path.is_file():
        return About()
    try:
        return About.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise DataError(f"{path}: is not YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise DataError(f"{path}: {problems}. Facts: {', '.join(get_args(Fact))}") from None


def recording_of(
    row: Row, about: About, folder: Path, audio: Audio | None = None, name: str | None = None
) -> Recording:
    """A row as a Recording. `audio` and `name` are given where the row does not tell them (a member of a tar).

    Raises:
        BadRow: for audio that is not there, or a number that is none.
    """
    audio = audio or audio_of(row, about, folder)
    maybe = lambda fact: row.maybe(about.column(fact))  # noqa: E731
    split_name = maybe("split")
    pitch, tempo = (row.number(about.column(fact)) if maybe(fact) else None for fact in ("pitch", "tempo_bpm"))
    question, answer, translation = maybe("question"), maybe("answer"), maybe("translation")
    if bool(question) != bool(answer):
        raise BadRow(about.column("answer" if question else "question"), "a question and its answer go together")
    return Recording(
        id=maybe("id") or name or _name(audio, folder, row),
        audio=audio,
        split=about.splits[split_name] if split_name in about.splits else split_named(split_name) or about.split,
        licence=maybe("licence") or about.licence,
        group=maybe("group") or "",
        labels=row.texts(about.column("labels"), about.separator),
        captions=row.texts(about.column("captions"), about.separator),
        transcript=maybe("transcript"),
        translations={language_named(maybe("translation_language") or "en") or "": translation} if translation else {},
        language=language_named(maybe("language") or about.language),
        speaker=maybe("speaker"),
        sex=maybe("sex"),
        emotion=maybe("emotion"),
        instrument=maybe("instrument"),
        family=maybe("family"),
        pitch=None if pitch is None else round(pitch),
        tempo_bpm=tempo,
        key=maybe("key"),
        exchanges=((question, answer),) if question and answer else (),
    )


def audio_of(row: Row, about: About, folder: Path) -> Audio:
    """The file of a row, or the part of it between `start` and `end` (or `seconds`)."""
    path = inside(folder / about.audio, row.text(about.column("audio")), about.column("audio"))
    start, end, seconds = (
        row.number(about.column(fact)) if row.maybe(about.column(fact)) else None
        for fact in ("start", "end", "seconds")
    )
    if start is None and end is None:
        return Audio(path, seconds=seconds)
    begin = start or 0.0
    length = end - begin if end is not None else seconds
    if begin < 0 or (length is not None and length <= 0):
        raise BadRow(about.column("end"), f"the part from {begin:g} s lasts {length} s")
    return Audio(path, start=begin, seconds=length, is_part=True)


def _name(audio: Audio, folder: Path, row: Row) -> str:
    """An id: the path without its ending, with the time of a part; the line where one clip is asked many questions."""
    name = audio.path.relative_to(folder).with_suffix("").as_posix().replace("/", "-")
    if audio.is_part:
        name += f"-{round(audio.start * 1000)}"
    return name if "question" not in row.values else f"{name}-{row.line}"
