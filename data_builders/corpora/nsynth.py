"""NSynth: 305,979 single notes of 1,006 instruments in 11 families, at every pitch. Its splits never share an
instrument.

Source: Engel et al., "Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders", ICML 2017.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row

SECONDS = 4.0


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        path = inside(row.path.parent / "audio", f"{row.text('note_str')}.wav", "note_str")
        pitch = row.number("pitch")
        if not 0 <= pitch <= 127:
            raise BadRow("pitch", f"{pitch:g} is no MIDI number")
        family, source = label_of(row.text("instrument_family_str")), row.text("instrument_source_str")
        return Recording(
            id=path.stem,
            audio=Audio(path, seconds=SECONDS),
            split=split_named(row.path.parent.name.removeprefix("nsynth-")),
            group=row.text("instrument_str"),
            instrument=f"{source} {family}",
            family=family,
            pitch=round(pitch),
            extra={"velocity": row.number("velocity"), "qualities": list(row.texts("qualities_str"))},
        )

    for path in sorted(folder.glob("nsynth-*/examples.json")):
        notes = json.loads(path.read_text(encoding="utf-8"))
        rows = (Row(path, 0, {"note_str": name, **note}) for name, note in notes.items())
        yield from each(rows, recording, report)


CORPUS = Corpus(
    name="nsynth",
    kind="music",
    licence="CC-BY-4.0",
    homepage="https://magenta.tensorflow.org/datasets/nsynth",
    download="The JSON/WAV archives unpacked to nsynth-train, nsynth-valid, nsynth-test.",
    layout=("nsynth-*/examples.json",),
    read=_read,
    isolated=True,
)
