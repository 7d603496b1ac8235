"""Records and clips for a recipe that has none: what the tiny twin of a published system is tried with.

Each file that the recipe names gets a few records for every task and split that its sources and stages ask for, with a
short and a long answer; a source of the task `transcription` gets transcripts, one called `text_only` no clips. Clips
are noise, and nothing can be learned from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lalm.audio.io import save_audio
from lalm.data.records import Record, Split, Turn, write_records
from lalm.errors import DataError
from lalm.recipe.schema import Recipe

SAMPLE_RATE_HZ = 16000
CLIP_SECONDS = (0.6, 1.3)
TEXT_ONLY = "text_only"
"""The name of a source without clips."""
TRANSCRIPTION = "transcription"
LONGER_BY = 2
"""Words by which the long answers pass the longest that a stage asks for."""


@dataclass
class _File:
    tasks: set[str] = field(default_factory=set)
    splits: set[Split] = field(default_factory=set)
    has_clips: bool = True


def write_invented(recipe: Recipe) -> None:
    """Writes every file of records of the recipe, and their clips, into `data.folder`; the same for every call.

    Raises:
        DataError: if a source is no `.jsonl` or `.parquet` file.
    """
    random = np.random.default_rng(0)
    clips = []
    for number, seconds in enumerate(CLIP_SECONDS):
        clips.append(f"clips/{number}.wav")
        wave = 0.2 * random.standard_normal(int(seconds * SAMPLE_RATE_HZ))
        save_audio(recipe.data.folder / clips[-1], wave.astype(np.float32), SAMPLE_RATE_HZ)
    longest = max([stage.min_answer_words or 0 for stage in recipe.stages]) + LONGER_BY
    for path, wanted in _files(recipe).items():
        records = []
        for task in sorted(wanted.tasks):
            for split in sorted(wanted.splits):
                for number, words in enumerate((1, longest, 1, longest)):
                    answer = " ".join(random.choice(["a", "bird", "sings", "two", "no"], words))
                    records.append(
                        Record(
                            id=f"{task}-{split}-{number}",
                            audio=(clips[number // 2],) if wanted.has_clips else (),
                            turns=(
                                Turn(role="user", content=f"What about {'ab'[number % 2]}?"),
                                Turn(role="assistant", content=answer),
                            ),
                            task=task,
                            split=split,
                            answer_type="transcript" if task == TRANSCRIPTION else "open",
                        )
                    )
        write_records(recipe.data.folder / path, records)


def _files(recipe: Recipe) -> dict[str, _File]:
    """Name of each file of records -> what must be in it."""
    splits: set[Split] = {"train", "validation", "test"}
    files: dict[str, _File] = {}
    for name, source in recipe.data.sources.items():
        if source.records.suffix not in (".jsonl", ".parquet"):
            raise DataError(
                f"data.sources.{name}: records are invented for .jsonl and .parquet files, not for {source.records}. "
                "Give records of your own: data.folder=FOLDER"
            )
        file = files.setdefault(str(source.records), _File())
        asked = {
            task
            for stage in recipe.stages
            if stage.sources is None or name in stage.sources
            for task in stage.tasks or ()
        }
        file.tasks |= set(source.tasks or ()) or asked or {"qa"}
        file.splits |= splits
        file.has_clips = file.has_clips and name != TEXT_ONLY
    return files
