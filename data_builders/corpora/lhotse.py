"""Lhotse manifests: cuts (MonoCut), or supervisions with recordings; JSONL, packed or not. Audio lies in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.corpora.about import About, read_about, recording_of
from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import split_in
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, jsonl_rows

COLUMNS = {"transcript": "text", "sex": "gender"}


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    said = read_about(folder)
    about = said.model_copy(update={"columns": {**COLUMNS, **said.columns}})
    cuts = sorted(folder.glob("*cuts*.jsonl*"))
    for path in cuts or sorted(folder.glob("*supervisions*.jsonl*")):
        known: dict[str, Any] = {}
        if not cuts:
            recordings = path.with_name(path.name.replace("supervisions", "recordings"))
            known = {str(row.values.get("id")): row.values for row in jsonl_rows(recordings, report)}
        here = about.model_copy(update={"split": split_in(path.name) or about.split})

        def recording(row: Row, here: About = here, known: dict[str, Any] = known) -> Recording:
            cut = row.values
            source = cut.get("recording") or known.get(str(cut.get("recording_id")))
            said = cut.get("supervisions") or [{}] if cuts else [cut]
            if len(said) > 1:
                raise BadRow("supervisions", f"the cut has {len(said)}; trim_to_supervisions makes one cut of each")
            facts = {key: value for key, value in said[0].items() if key not in ("id", "start", "duration")}
            told = Row(row.path, row.line, {**(facts.pop("custom", None) or {}), **facts})
            return recording_of(told, here, folder, _audio(row, source, folder / here.audio), row.text("id"))

        yield from each(jsonl_rows(path, report), recording, report)


def _audio(row: Row, source: Any, folder: Path) -> Audio:
    files = [part for part in (source or {}).get("sources", ()) if part.get("type") == "file"]
    if not files:
        raise BadRow("recording", "names no audio file (one that is made by a command or fetched is not read)")
    start, seconds = row.number("start"), row.number("duration")
    if start < 0 or seconds <= 0:
        raise BadRow("duration", f"the part from {start:g} s lasts {seconds:g} s")
    return Audio(inside(folder, files[0]["source"], "source"), start=start, seconds=seconds, is_part=True)


CORPUS = Corpus(
    "lhotse", "generic", "unknown", "https://lhotse.readthedocs.io/",
    "NAME_cuts.jsonl.gz, or NAME_supervisions and NAME_recordings, and their audio below the same folder.",
    ("*.jsonl*",), _read,
)  # fmt: skip
