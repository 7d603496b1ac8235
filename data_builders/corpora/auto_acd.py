"""Auto-ACD: 1.5 M clips of AudioSet and VGGSound with captions made of sound, picture and labels. Ids are those of
AudioSet (YTID) or of VGGSound (YTID_000030).

Source: Sun et al., "Auto-ACD: A Large-scale Dataset for Audio-Language Representation Learning", ACM MM 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, Corpus, Recording, Report, each
from data_builders.corpora.names import YOUTUBE_ID, split_named
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        name, start = row.text("youtube_id"), None
        video = name[:YOUTUBE_ID]
        return Recording(
            id=name,
            audio=Audio(youtube_audio(folder / "audio", name, start, "youtube_id")),
            split=split_named(row.path.stem),
            group=f"youtube-{video}",
            captions=(row.text("caption"),),
        )

    for path in (path for path in (folder / "train.csv", folder / "test.csv") if path.is_file()):
        yield from each(csv_rows(path, ("youtube_id", "caption"), report), recording, report)


CORPUS = Corpus(
    name="auto_acd",
    kind="sound",
    licence="CC-BY-4.0 (captions; the audio is its uploaders')",
    homepage="https://huggingface.co/datasets/Loie/Auto-ACD",
    download="train.csv and test.csv, and clips of your own as audio/YTID.wav.",
    layout=(
        "*.csv",
        "audio",
    ),
    read=_read,
)
