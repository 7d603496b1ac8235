"""SpeechCraft: how 2.1 M utterances of AISHELL-3, Zhvoice, GigaSpeech-M and LibriTTS-R are spoken, in a sentence each.

Its annotations are given out on a site of their own, whose keys no public page tells. Read are lists or lines of
objects with audio, description and, where they are there, text, speaker, gender, emotion, language; corpus.yaml names
others.

Source: Jin et al., "SpeechCraft: A Fine-Grained Expressive Speech Dataset with Natural Language Description", MM 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.about import read_about, recording_of
from data_builders.corpora.base import Corpus, Recording, Report, each
from data_builders.corpora.rows import json_rows, jsonl_rows

COLUMNS = {"captions": "description", "transcript": "text", "sex": "gender"}


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    said = read_about(folder)
    licence = CORPUS.licence if said.licence == "unknown" else said.licence
    about = said.model_copy(update={"columns": {**COLUMNS, **said.columns}, "licence": licence})
    for path in sorted({*folder.glob("annotations/*.json"), *folder.glob("annotations/*.jsonl")}):
        language = "zh" if "zh" in path.stem.lower() else "en" if "en" in path.stem.lower() else said.language
        here = about.model_copy(update={"language": language})
        rows = json_rows(path, report) if path.suffix == ".json" else jsonl_rows(path, report)
        yield from each(rows, partial(recording_of, about=here, folder=folder), report)


CORPUS = Corpus(
    name="speechcraft",
    kind="speech",
    licence="non-commercial (descriptions; the speech has its corpora's)",
    homepage="https://github.com/thuhcsi/SpeechCraft",
    download="The descriptions in annotations (zh.json, en.json), and the four corpora; corpus.yaml: audio, columns.",
    layout=("annotations/*.json*",),
    read=_read,
)
