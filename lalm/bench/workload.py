"""The invented records that every system is measured on: clips of mixed lengths, several questions about each.

    write_workload(folder, Workload(num_clips=8, questions_per_clip=4))

writes `clips/N.wav` (noise) and `train.jsonl`. The k-th `num_clips` records hold the k-th question about each clip, so
that a batch of `num_clips` records in file order holds every clip once: a step that is typical of the whole epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from lalm.bench.flops import useful_decoder_work
from lalm.data.records import Record, Turn, write_records

if TYPE_CHECKING:
    from lalm.data.examples import Example

SAMPLE_RATE_HZ = 16000
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz "))


@dataclass(frozen=True)
class Workload:
    """Sizes are drawn evenly between the two bounds, each seeded by `seed`. Text is counted in characters, of which
    each is a token: random models have a tokenizer of bytes."""

    num_clips: int = 8
    questions_per_clip: int = 4
    clip_seconds: tuple[float, float] = (2.0, 30.0)
    question_chars: tuple[int, int] = (30, 70)
    answer_chars: tuple[int, int] = (20, 100)
    seed: int = 0

    @property
    def num_records(self) -> int:
        """Records of one epoch."""
        return self.num_clips * self.questions_per_clip


@dataclass(frozen=True)
class Work:
    """What the records of one epoch need, whoever computes it: nothing twice, no padding."""

    audio_seconds: float
    """Of the distinct clips."""
    num_records: int
    useful_tokens: int
    """Decoder positions: what all questions about a clip begin with counts once for each group of questions."""
    supervised_tokens: int


def write_workload(folder: Path, workload: Workload) -> list[Record]:
    """Writes clips and records, and returns the records in file order."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(workload.seed)
    for number, num_samples in enumerate(clip_samples(workload)):
        wave = 0.1 * random.standard_normal(num_samples)
        soundfile.write(folder / f"clips/{number}.wav", wave.astype(np.float32), SAMPLE_RATE_HZ, subtype="PCM_16")
    records = [
        Record(
            id=f"{clip}-{question}",
            audio=(f"clips/{clip}.wav",),
            turns=(
                Turn(role="user", content=_text(random, workload.question_chars)),
                Turn(role="assistant", content=_text(random, workload.answer_chars)),
            ),
        )
        for question in range(workload.questions_per_clip)
        for clip in range(workload.num_clips)
    ]
    write_records(folder / "train.jsonl", records)
    return records


def clip_samples(workload: Workload) -> list[int]:
    """Samples of every clip: one from each of `num_clips` equal parts of the range, in random order."""
    random = np.random.default_rng([workload.seed, 1])
    low, high = workload.clip_seconds
    places = (np.arange(workload.num_clips) + random.random(workload.num_clips)) / workload.num_clips
    return [round((low + (high - low) * place) * SAMPLE_RATE_HZ) for place in random.permutation(places)]


def needed_work(examples: Sequence[Example], audio_seconds: float) -> Work:
    """Counts the useful positions of one epoch, see `Work`."""
    return Work(
        audio_seconds=audio_seconds,
        num_records=len(examples),
        useful_tokens=useful_decoder_work(examples)[0],
        supervised_tokens=sum(example.num_supervised for example in examples),
    )


def _text(random: np.random.Generator, bounds: tuple[int, int]) -> str:
    """Letters and single spaces, with a letter at both ends."""
    letters = LETTERS[random.integers(0, len(LETTERS), random.integers(bounds[0], bounds[1] + 1))]
    letters[[0, -1]] = LETTERS[random.integers(0, len(LETTERS) - 1, 2)]
    return "".join(letters)
