"""AudioSetCaps: 6.1 M clips of AudioSet, VGGSound and YouTube-8M with captions by an audio model and a language model.
Ids are YTIDs as YYTID, YTID_000030 and YTID_84_10. Its authors warn that clips of the test sets of AudioCaps and
VGGSound are in it: decontaminate what is made of it.

Source: Bai et al., "AudioSetCaps: An Enriched Audio-Caption Dataset", arXiv 2411.18953.
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
        # Only the ids of AudioSet itself have a Y in front.
        of_audioset = row.path.name.startswith("AudioSetCaps")
        name, start = row.text("id").removeprefix("Y") if of_audioset else row.text("id"), None
        video = name[:YOUTUBE_ID]
        return Recording(
            id=name,
            audio=Audio(youtube_audio(folder / "audio", name, start, "id")),
            split="train",
            group=f"youtube-{video}",
            captions=(row.text("caption"),),
        )

    for path in sorted(folder.glob("*AudioSetCaps_caption.csv")):
        yield from each(csv_rows(path, ("id", "caption"), report), recording, report)


CORPUS = Corpus(
    name="audiosetcaps",
    kind="sound",
    licence="CC-BY-4.0 (captions; the audio is its uploaders')",
    homepage="https://huggingface.co/datasets/baijs/AudioSetCaps",
    download="The *AudioSetCaps_caption.csv of its Dataset folder, and clips of your own as audio/ID.wav.",
    layout=(
        "*AudioSetCaps_caption.csv",
        "audio",
    ),
    read=_read,
)
