"""MusicCaps: 10 s of 5,521 videos with a caption and aspects by musicians. Clips of AudioSet's evaluation set are the
test split, so that training on the rest touches none of it.

Source: Agostinelli et al., "MusicLM: Generating Music From Text", arXiv 2301.11325.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import youtube_audio
from data_builders.corpora.rows import Row, csv_rows

COLUMNS = ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_balanced_subset", "is_audioset_eval")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        video, start, end = row.text("ytid"), row.number("start_s"), row.number("end_s")
        path = youtube_audio(folder / "audio", video, start, "ytid")
        try:
            aspects = [str(aspect) for aspect in ast.literal_eval(row.text("aspect_list"))]
        except (ValueError, SyntaxError, TypeError):
            raise BadRow("aspect_list", f"'{row.text('aspect_list')[:40]}' is not a list") from None
        return Recording(
            id=f"{video}_{int(start)}",
            audio=Audio(path, seconds=end - start),
            split="test" if row.text("is_audioset_eval") == "True" else "train",
            group=f"youtube-{video}",
            captions=(row.text("caption"),),
            extra={"aspects": aspects, "balanced": row.maybe("is_balanced_subset") == "True"},
        )

    return each(csv_rows(folder / "musiccaps-public.csv", COLUMNS, report), recording, report)


CORPUS = Corpus(
    name="musiccaps",
    kind="music",
    licence="CC-BY-SA-4.0 (captions; the audio is its uploaders')",
    homepage="https://huggingface.co/datasets/google/MusicCaps",
    download="musiccaps-public.csv, and clips of your own as audio/YTID.wav.",
    layout=("musiccaps-public.csv", "audio"),
    read=_read,
)
