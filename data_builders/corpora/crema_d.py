"""CREMA-D: 91 actors say 12 sentences in six emotions. All is in the file name: actor, sentence, emotion, level.

Source: Cao et al., "CREMA-D: Crowd-Sourced Emotional Multimodal Actors Dataset", IEEE TAC 2014.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import audio_files
from data_builders.corpora.rows import Row, csv_rows

EMOTIONS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock.", "TIE": "That is exactly what happened.", "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.", "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.", "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.", "ITS": "I think I've seen this before.", "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}  # fmt: skip


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    table = folder / "VideoDemographics.csv"
    people = csv_rows(table, ("ActorID", "Sex"), report) if table.is_file() else ()
    sexes = {row.text("ActorID"): row.text("Sex").lower() for row in people}

    def recording(row: Row) -> Recording:
        path: Path = row.path
        actor, sentence, emotion, level, *_ = [*path.stem.split("_"), "", "", ""]
        if sentence not in SENTENCES or emotion not in EMOTIONS:
            raise BadRow("name", "is not ACTOR_SENTENCE_EMOTION_LEVEL")
        return Recording(
            path.stem, Audio(path), group=f"actor-{actor}", transcript=SENTENCES[sentence], language="English",
            speaker=actor, sex=sexes.get(actor), emotion=EMOTIONS[emotion], extra={"level": level},
        )  # fmt: skip

    return each((Row(path, 0, {}) for path in audio_files(folder / "AudioWAV")), recording, report)


CORPUS = Corpus(
    "crema_d", "speech", "ODbL-1.0", "https://github.com/CheyneyComputerScience/CREMA-D",
    "AudioWAV and VideoDemographics.csv of the repository (with git-lfs).", ("AudioWAV",), _read,
)  # fmt: skip
