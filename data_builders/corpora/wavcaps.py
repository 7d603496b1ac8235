"""WavCaps: 403,050 clips of four sources with captions that ChatGPT made of raw descriptions. The blacklists name
clips of the usual test sets (AudioCaps, Clotho, ESC-50, UrbanSound8K, VGGSound); every one of them is left out.

Source: Mei et al., "WavCaps: A ChatGPT-Assisted Weakly-Labelled Audio Captioning Dataset", TASLP 2024.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, json_rows

SOURCES = {"AudioSet_SL": "AudioSet", "FreeSound": "FreeSound", "BBC_Sound_Effects": "BBC", "SoundBible": "SoundBible"}
"""Folder -> its name in the blacklists."""


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    banned: dict[str, set[str]] = {}
    for path in sorted(folder.glob("json_files/blacklist/*.json")):
        for name, ids in json.loads(path.read_text(encoding="utf-8")).items():
            banned.setdefault(name, set()).update(_stem(str(entry)) for entry in ids)
    for source, name in SOURCES.items():
        for path in sorted((folder / "json_files" / source).glob("*_final.json")):
            make = partial(_recording, folder=folder, source=source, banned=banned.get(name, set()))
            yield from each(json_rows(path, report, under="data"), make, report)


def _recording(row: Row, folder: Path, source: str, banned: set[str]) -> Recording:
    stem = _stem(row.text("id"))
    if stem in banned:
        raise BadRow("id", f"'{stem}' is on a blacklist: a test set holds it", harmless=True)
    prefix = {"FreeSound": "freesound-", "AudioSet_SL": "youtube-"}.get(source, f"{source}-")
    return Recording(
        id=f"{source}-{stem}",
        audio=Audio(one_of(folder / "audio" / source, (stem,), "id"), seconds=row.number("duration")),
        split="train",
        group=prefix + (stem.removeprefix("Y") if source == "AudioSet_SL" else stem),
        captions=(row.text("caption"),),
        extra={key: row.values[key] for key in ("title", "description", "author", "href") if row.maybe(key)},
    )


def _stem(name: str) -> str:
    return name.removesuffix(".wav").removesuffix(".flac")


CORPUS = Corpus(
    "wavcaps", "sound", "CC-BY-4.0 (captions; academic use of the clips)", "https://huggingface.co/datasets/cvssp/WavCaps",
    "json_files with its blacklist folder; each archive of Zip_files unpacked to audio/SOURCE (audio/FreeSound, ...).",
    ("json_files/blacklist/*.json", "json_files/*/*_final.json", "audio"), _read,
)  # fmt: skip
