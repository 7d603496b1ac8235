"""VGGSound: 10 s of 200 k videos in 309 classes, whose source is seen. The table has no header.

Source: Chen et al., "VGGSound: A Large-Scale Audio-Visual Dataset", ICASSP 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import label_of, split_named
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows

COLUMNS = ("youtube_id", "start_seconds", "label", "split")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        video, start = row.text("youtube_id"), row.number("start_seconds")
        return Recording(
            id=f"{video}_{int(start):06d}",
            audio=Audio(youtube_audio(folder / "audio", video, start, "youtube_id")),
            split=split_named(row.text("split")),
            group=f"youtube-{video}",
            labels=(label_of(row.text("label")),),
        )

    return each(csv_rows(folder / "vggsound.csv", COLUMNS, report, names=COLUMNS), recording, report)


CORPUS = Corpus(
    name="vggsound",
    kind="sound",
    licence="CC-BY-4.0 (labels; the audio is its uploaders')",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    download="vggsound.csv, and clips of your own as audio/YTID_000030.wav.",
    layout=("vggsound.csv", "audio"),
    read=_read,
)
