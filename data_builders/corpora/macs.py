"""MACS: 3,930 scenes of 10 s (airport, park, square) of TAU Urban Acoustic Scenes 2019, with up to five captions and
tags.

Source: Martin, Mesaros, "Diversity and Bias in Audio Captioning Datasets", DCASE 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    table = folder / "MACS.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # The C one takes seconds, the other minutes.
    with table.open(encoding="utf-8") as file:
        files = yaml.load(file, Loader=loader)["files"]

    def recording(row: Row) -> Recording:
        path = inside(folder / "audio", row.text("filename"), "filename")
        told = row.values.get("annotations") or []
        captions = tuple(str(entry.get("sentence") or "").strip() for entry in told)
        if not any(captions):
            raise BadRow("annotations", "hold no sentence")
        scene, city, place, *_ = [*path.stem.split("-"), "", ""]
        return Recording(
            id=path.stem,
            audio=Audio(path),
            group=f"{city}-{place}",
            captions=tuple(filter(None, captions)),
            labels=tuple(sorted({label_of(tag) for entry in told for tag in entry.get("tags") or ()})),
            extra={"scene": label_of(scene), "city": city},
        )

    return each((Row(table, 0, entry) for entry in files), recording, report)


CORPUS = Corpus(
    name="macs",
    kind="sound",
    licence="Tampere University licence (non-commercial)",
    homepage="https://zenodo.org/records/5114771",
    download="MACS.yaml, and the development audio of TAU Urban Acoustic Scenes 2019 in audio.",
    layout=("MACS.yaml", "audio"),
    read=_read,
)
