"""A Kaldi data folder: wav.scp, and where they are text, segments, utt2spk, spk2gender, utt2lang. Pipes are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.about import read_about
from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import language_named, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, field_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    about = read_about(folder)

    def table(name: str) -> dict[str, str]:
        path = folder / name
        rows = field_rows(path, ("id", "value"), None, report) if path.is_file() else ()
        return {row.values["id"]: row.values["value"] for row in rows}

    text, speakers, sexes, languages = map(table, ("text", "utt2spk", "spk2gender", "utt2lang"))

    def recording(row: Row) -> Recording:
        name = row.text("id")
        wave = waves.get(row.values.get("recording", name), "")
        if not wave:
            raise BadRow("recording", f"'{row.values.get('recording', name)}' is not in wav.scp")
        if wave.endswith("|") or wave.startswith("|"):
            raise BadRow("wav.scp", f"'{wave[:60]}' is a command, which is not run; write the files and name them")
        path = inside(folder / about.audio, wave, "wav.scp")
        audio = Audio(path)
        if "start" in row.values:
            start, end = row.number("start"), row.number("end")
            if not 0 <= start < end:
                raise BadRow("end", f"the segment from {start:g} to {end:g} s has no length")
            audio = Audio(path, start=start, seconds=end - start, is_part=True)
        speaker = speakers.get(name)
        sex = {"m": "male", "f": "female"}.get(sexes.get(speaker or "", ""))
        language = language_named(languages.get(name) or about.language)
        return Recording(
            name, audio, about.split or split_named(folder.name), about.licence, speaker or "",
            transcript=text.get(name), language=language, speaker=speaker, sex=sex,
        )  # fmt: skip

    waves = table("wav.scp")
    rows: Iterator[Row] = field_rows(folder / "wav.scp", ("id", "file"), None, report)
    if (folder / "segments").is_file():
        rows = field_rows(folder / "segments", ("id", "recording", "start", "end"), None, report)
    return each(rows, recording, report)


CORPUS = Corpus(
    "kaldi", "generic", "unknown", "https://kaldi-asr.org/doc/data_prep.html",
    "A Kaldi data folder whose audio lies inside it.", ("wav.scp",), _read,
)  # fmt: skip
