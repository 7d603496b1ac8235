"""NeMo manifests: JSONL with audio_filepath, duration, text, and where they are offset, lang, speaker, emotion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.about import About, read_about, recording_of
from data_builders.corpora.base import Corpus, Recording, Report, each
from data_builders.corpora.names import split_in
from data_builders.corpora.rows import Row, jsonl_rows

COLUMNS = {
    "audio": "audio_filepath",
    "seconds": "duration",
    "start": "offset",
    "transcript": "text",
    "language": "lang",
    "captions": "caption",
    "sex": "gender",
}


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    said = read_about(folder)
    about = said.model_copy(update={"columns": {**COLUMNS, **said.columns}})
    manifests = sorted({*folder.glob("*.json"), *folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")})
    for path in manifests:
        here = about.model_copy(update={"split": split_in(path.name) or about.split})
        yield from each(jsonl_rows(path, report), lambda row, here=here: _recording(row, here, folder), report)  # type: ignore[misc]


def _recording(row: Row, about: About, folder: Path) -> Recording:
    if not row.maybe(about.column("start")):
        values = {key: value for key, value in row.values.items() if key != about.column("start")}
        row = Row(row.path, row.line, values)
    return recording_of(row, about, folder)


CORPUS = Corpus(
    name="nemo",
    kind="generic",
    licence="unknown",
    homepage="https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html",
    download="Manifests (train_manifest.json, ...) and their audio below the same folder.",
    layout=("*.json*",),
    read=_read,
)
