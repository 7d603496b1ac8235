"""AnimalSpeak: 1.1 M recordings of animals (iNaturalist, Xeno-canto, Watkins, Animal Sound Archive) with up to two
captions and the species. Clips are named by the row's number, as many addresses end alike.

Source: Robinson, Robinson, Akrapongpisak, "Transferable Models for Bioacoustics with Human Language Supervision",
2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of, licence_of
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        number, species = row.text("i"), row.maybe("species_common") or row.maybe("species_scientific")
        return Recording(
            id=number,
            audio=Audio(one_of(folder / "audio", (number,), "i")),
            licence=licence_of(row.maybe("license")),
            group=f"{row.text('source')}-{row.maybe('recordist') or number}",
            labels=(label_of(species),) if species else (),
            captions=tuple(filter(None, (row.text("caption"), row.maybe("caption2")))),
            extra={
                key: row.text(key) for key in ("url", "source", "recordist", "species_scientific") if row.maybe(key)
            },
        )

    for path in sorted(folder.glob("AnimalSpeak*.csv")):
        yield from each(csv_rows(path, ("i", "url", "source", "caption"), report), recording, report)


CORPUS = Corpus(
    name="animalspeak",
    kind="sound",
    licence="CC-BY-NC-SA-4.0 (captions; recordings per archive)",
    homepage="https://huggingface.co/datasets/davidrrobinson/AnimalSpeak",
    download="AnimalSpeak*.csv, and the recordings of its addresses as audio/I.mp3, I being the row's number.",
    layout=("AnimalSpeak*.csv", "audio"),
    read=_read,
)
