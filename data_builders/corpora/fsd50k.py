"""FSD50K: 51,197 clips of freesound in 200 classes of AudioSet; a clip has a class and all above it. Licences per clip.

Source: Fonseca et al., "FSD50K: An Open Dataset of Human-Labeled Sound Events", TASLP 2022.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of, licence_of, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for part, columns in (("dev", ("fname", "labels", "split")), ("eval", ("fname", "labels"))):
        told = folder / f"FSD50K.metadata/{part}_clips_info_FSD50K.json"
        infos = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}

        def recording(row: Row, part: str = part, infos: dict[str, Any] = infos) -> Recording:
            name = row.text("fname")
            info = infos.get(name, {})
            return Recording(
                id=name,
                audio=Audio(inside(folder / f"FSD50K.{part}_audio", f"{name}.wav", "fname")),
                split="test" if part == "eval" else split_named(row.text("split")),
                licence=licence_of(info.get("license")),
                group=f"freesound-{name}",
                labels=tuple(label_of(label.replace("_and_", " and ")) for label in row.texts("labels", ",")),
                extra={key: info[key] for key in ("title", "description", "tags", "uploader") if key in info},
            )

        yield from each(csv_rows(folder / f"FSD50K.ground_truth/{part}.csv", columns, report), recording, report)


CORPUS = Corpus(
    name="fsd50k",
    kind="sound",
    licence="CC-BY-4.0 (dataset; clips CC0, CC-BY, CC-BY-NC or sampling+)",
    homepage="https://zenodo.org/records/4060432",
    download="FSD50K.ground_truth, FSD50K.dev_audio, FSD50K.eval_audio; FSD50K.metadata tells the licences.",
    layout=("FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv", "FSD50K.dev_audio", "FSD50K.eval_audio"),
    read=_read,
)
