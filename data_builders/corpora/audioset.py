"""AudioSet, weak labels: 10 s of 2 M videos with the classes heard somewhere in them. What is not labelled may be
heard.

Source: Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.ontology import read_ontology
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    ontology = read_ontology(folder, report)

    def recording(row: Row) -> Recording:
        video, start, end = row.text("YTID"), row.number("start_seconds"), row.number("end_seconds")
        mids = row.texts("positive_labels", ",")
        unknown = [mid for mid in mids if mid not in ontology.names]
        if unknown or not mids:
            raise BadRow("positive_labels", f"'{unknown[0]}' is no class of the ontology" if unknown else "is empty")
        return Recording(
            id=f"{video}_{round(start * 1000)}",
            audio=Audio(youtube_audio(folder / "audio", video, start, "YTID"), seconds=end - start),
            split="test" if row.path.name.startswith("eval") else "train",
            group=f"youtube-{video}",
            labels=tuple(ontology.names[mid] for mid in mids),
            extra={"mids": list(mids), "broader": sorted({name for mid in mids for name in ontology.broader(mid)})},
        )

    for path in sorted(folder.glob("*_segments.csv")):
        yield from each(csv_rows(path, COLUMNS, report, names=COLUMNS, comment="#"), recording, report)


CORPUS = Corpus(
    name="audioset",
    kind="sound",
    licence="CC-BY-4.0 (labels; the audio is its uploaders')",
    homepage="https://research.google.com/audioset/",
    download="The *_segments.csv, class_labels_indices.csv or ontology.json, and clips of your own as audio/YTID.wav.",
    layout=("*_segments.csv", "audio"),
    read=_read,
)
