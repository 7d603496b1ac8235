"""Sound-VECaps: 1.66 M clips of AudioSet with long captions, enriched by what is seen; the *_audio table names only
what can be heard and is preferred. Ids are YTIDs with a Y in front.

Source: Yuan et al., "Sound-VECaps: Improving Audio Generation with Visually Enhanced Captions", ICASSP 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import YOUTUBE_ID
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        name, start = row.text("id").removesuffix(".wav").removeprefix("Y"), None
        video = name[:YOUTUBE_ID]
        return Recording(
            id=name,
            audio=Audio(youtube_audio(folder / "audio", name, start, "id")),
            split="train",
            group=f"youtube-{video}",
            captions=(row.text("caption"),),
        )

    for path in sorted(folder.glob("Sound-VECaps_audio.csv")) or sorted(folder.glob("Sound-VECaps*.csv"))[:1]:
        yield from each(csv_rows(path, ("id", "caption"), report), recording, report)


CORPUS = Corpus(
    name="sound_vecaps",
    kind="sound",
    licence="CC-BY-NC-4.0 (captions; the audio is its uploaders')",
    homepage="https://yyua8222.github.io/Sound-VECaps-demo/",
    download="Sound-VECaps_audio.csv, and clips of your own as audio/YYTID.wav.",
    layout=(
        "Sound-VECaps*.csv",
        "audio",
    ),
    read=_read,
)
