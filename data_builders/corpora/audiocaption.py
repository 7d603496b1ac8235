"""AudioCaption: 10 s of 3,707 clips in hospitals and 3,610 in cars, captioned in Mandarin and translated into English.
Which of the hospital's are for training is told by the Mandarin tables alone.

Source: Wu, Dinkel, Yu, "Audio Caption: Listen and Tell", ICASSP 2019; Xu, Dinkel, Wu, Yu, arXiv 1905.13448.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.clips import Split
from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, grouped, json_rows

SPLITS: dict[str, Split] = {"dev": "train", "eval": "test"}


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for place in ("hospital", "car"):
        rows: list[Row] = []
        splits: dict[str | None, Split] = {}
        for path in sorted(folder.glob(f"{place}_*_*.json")):
            language, part = path.stem.split("_")[1:]
            for row in json_rows(path, report):
                if part in SPLITS:
                    splits[row.maybe("filename")] = SPLITS[part]
                rows.append(Row(row.path, row.line, {**row.values, "of": language}))
        yield from each(grouped(rows, "filename"), partial(_recording, folder=folder, splits=splits), report)


def _recording(rows: list[Row], folder: Path, splits: dict[str | None, Split]) -> Recording:
    name = rows[0].text("filename")
    captions = {of: [row.text("caption") for row in rows if row.values["of"] == of] for of in ("en", "zh")}
    if not captions["en"]:
        raise BadRow("filename", f"'{name}' has no English caption", harmless=True)
    path = inside(folder, name if Path(name).suffix else f"{name}.wav", "filename")
    unique = tuple(dict.fromkeys(captions["en"]))
    extra = {"captions_zh": list(dict.fromkeys(captions["zh"]))}
    return Recording(name.replace("/", "-"), Audio(path), splits.get(name), captions=unique, extra=extra)


CORPUS = Corpus(
    "audiocaption", "sound", "none given (research)", "https://github.com/RicherMans/AudioCaption",
    "hospital_en_all.json, hospital_zh_dev.json, hospital_zh_eval.json, car_en_dev.json, car_en_eval.json and "
    "the clips (hospital_3707, car_3610) of zenodo.org/records/4671263.",
    ("*_en_*.json",), _read,
)  # fmt: skip
