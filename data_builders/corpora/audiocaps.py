"""AudioCaps 1 and 2: 10 s of AudioSet with captions, one a training clip, five a clip of the other splits. Some
captions hold line breaks.

Source: Kim et al., "AudioCaps: Generating Captions for Audios in the Wild", NAACL 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import split_named
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows, grouped

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(rows: list[Row]) -> Recording:
        video, start = rows[0].text("youtube_id"), rows[0].number("start_time")
        return Recording(
            id=f"{video}_{int(start)}",
            audio=Audio(youtube_audio(folder / "audio", video, start, "youtube_id")),
            split=split_named(rows[0].path.stem),
            group=f"youtube-{video}",
            captions=tuple(" ".join(row.text("caption").split()) for row in rows),
            extra={"audiocap_ids": [row.text("audiocap_id") for row in rows]},
        )

    for part in ("train", "val", "test"):
        if (folder / f"{part}.csv").is_file():
            rows = csv_rows(folder / f"{part}.csv", COLUMNS, report)
            yield from each(grouped(rows, "youtube_id", "start_time"), recording, report)


CORPUS = Corpus(
    name="audiocaps",
    kind="sound",
    licence="MIT (captions, for academic use; the audio is its uploaders')",
    homepage="https://github.com/cdjkim/audiocaps",
    download="train.csv, val.csv, test.csv of the repository's dataset folder, and clips as audio/YTID.wav.",
    layout=("*.csv", "audio"),
    read=_read,
)
