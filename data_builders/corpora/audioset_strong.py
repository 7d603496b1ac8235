"""AudioSet, strong labels: every sound of 10 s with its times, of 120 k clips. Segment ids end in the start in ms.

Source: Hershey et al., "The Benefit of Temporally-Strong Labels in Audio Event Classification", ICASSP 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, Span, each
from data_builders.corpora.ontology import read_ontology
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows

COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    ontology = read_ontology(folder, report)

    def span(row: Row) -> Span:
        start, end = row.number("start_time_seconds"), row.number("end_time_seconds")
        if row.text("label") not in ontology.names:
            raise BadRow("label", f"'{row.text('label')}' is no class of the ontology")
        if not 0 <= start < end:
            raise BadRow("end_time_seconds", f"the event from {start:g} to {end:g} s has no length")
        return Span(ontology.names[row.text("label")], start, end)

    def recording(rows: list[Row]) -> Recording:
        video, _, start = rows[0].text("segment_id").rpartition("_")
        if not start.isdigit():
            raise BadRow("segment_id", f"'{rows[0].text('segment_id')}' does not end in _milliseconds")
        events = tuple(sorted(map(span, rows), key=lambda event: (event.onset, event.offset)))
        return Recording(
            id=rows[0].text("segment_id"),
            audio=Audio(youtube_audio(folder / "audio", video, int(start) / 1000, "segment_id")),
            split="test" if "eval" in rows[0].path.name else "train",
            group=f"youtube-{video}",
            labels=tuple(dict.fromkeys(event.label for event in events)),
            events=events,
        )

    for path in sorted(folder.glob("audioset_*_strong.tsv")):
        rows = csv_rows(path, COLUMNS, report, delimiter="\t", quoted=False)
        yield from each(
            (list(part) for _, part in groupby(rows, lambda row: row.maybe("segment_id"))), recording, report
        )


CORPUS = Corpus(
    "audioset_strong", "sound", "CC-BY-4.0 (labels; the audio is its uploaders')",
    "https://research.google.com/audioset/download_strong.html",
    "audioset_train_strong.tsv, audioset_eval_strong.tsv, mid_to_display_name.tsv, and clips as audio/YTID_30000.wav.",
    ("audioset_*_strong.tsv", "audio"), _read,
)  # fmt: skip
