"""The recipe of a set: one YAML file that declares every step from recordings to sealed shards.

    sources -> clips and scenes -> questions -> filters -> dedupe -> decontaminate -> output

Defaults stand here and nowhere else. `recipe_reading.py` reads a file into a DataRecipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from data_builders.asking import ROUNDS
from data_builders.clips import Split
from data_builders.effects import EffectShares
from data_builders.questions import TASKS
from data_builders.selection import Size
from data_builders.sources import SOURCES
from data_builders.wordings import ENGLISH, wording_languages

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """Unknown keys are refused; the object never changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Source(Part):
    """Where recordings come from: a packaged source that `lalm data fetch` fetches, or a corpus in a folder."""

    packaged: str | None = None
    """Name of a packaged source."""
    corpus: str | None = None
    """Name of a corpus whose folder you have."""
    folder: Path | None = None
    """The folder of the corpus, in its authors' layout."""

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if (self.packaged is None) == (self.corpus is None):
            raise ValueError("give either 'packaged' or 'corpus' (with 'folder')")
        if (self.corpus is None) != (self.folder is None):
            raise ValueError("'corpus' and 'folder' go together")
        if self.packaged is not None and self.packaged not in SOURCES:
            raise ValueError(f"packaged: '{self.packaged}' is not known. Accepted: {', '.join(SOURCES)}")
        return self


class Clips(Part):
    """Which recordings are stored, a split each."""

    longest_speech_seconds: Annotated[float, Field(gt=0)] = 8.0
    """Longer prompts are left out."""
    prompts: dict[Split, Count] = Field(default_factory=dict)
    """Running speech, in whole groups of the same prompt."""
    closed_variants: Count = 0
    """Variants (speed, gain, noise) of each training digit, letter and code word."""
    sounds_per_label: dict[Split, Count] = Field(default_factory=dict)
    """Training fills up with variants."""
    instruments_per_label: dict[Split, Count] = Field(default_factory=dict)
    told: dict[Split, Count] = Field(default_factory=dict)
    """Whole recordings of corpora with captions, events, questions, emotions, speakers, tempo or key."""
    longest_told_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Longer ones are left out."""


class Scenes(Part):
    """Composed scenes, and the shares of them that have an effect."""

    count: dict[Split, Count] = Field(default_factory=dict)
    overlap: Share = 0.0
    """Some events begin while the one before sounds."""
    background: Share = 0.0
    """White, pink or brown noise below the events."""
    snr_db: tuple[float, float] = (5.0, 25.0)
    """Between which the level of the events over the background is drawn."""
    reverb: Share = 0.0
    filter: Share = 0.0
    """A low-pass or high-pass filter over the whole scene."""
    stereo: Share = 0.0
    """Each event from the left or the right; the clip has two channels."""


class Questions(Part):
    """What is asked of the clips and scenes."""

    records: dict[Split, dict[str, Count]]
    """Of each split, how many records of each task."""
    rounds: dict[str, PositiveInt] = Field(default_factory=dict)
    """How often one clip may be asked by a task, in other words. A task that is not named asks a training clip as
    often as `ROUNDS` says, and a held-out one once."""
    languages: tuple[str, ...] = (ENGLISH,)
    """Languages of the questions; answers are English."""
    block_clips: PositiveInt | None = None
    """Clips that are asked together, answers balanced among them. None: all of a split. Blocks run in parallel."""

    @field_validator("records", "rounds")
    @classmethod
    def _tasks_are_known(cls, value: dict) -> dict:
        nested = [tasks for tasks in value.values() if isinstance(tasks, dict)]
        for tasks in nested or [value]:
            for task in tasks:
                if task not in TASKS:
                    raise ValueError(f"{_unknown('task', task, TASKS)}")
        return value

    @field_validator("languages")
    @classmethod
    def _languages_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for language in value:
            if language not in wording_languages():
                raise ValueError(f"{_unknown('language', language, wording_languages())}")
        if not value:
            raise ValueError("give at least one language")
        return value


class FilterStep(Part):
    """One filter of the chain, in the order of the list."""

    name: Literal["phrases", "grounding", "blind", "balance"]
    action: Literal["drop", "mark"] = "drop"
    """For `blind`: what is answered without the audio is dropped, or only marked."""
    strict: bool = False
    """For `grounding`: reject records without metadata to check against."""


class Dedupe(Part):
    """Duplicates: the same (or nearly the same) sound asked the same; see `lalm data dedupe`."""

    of: Literal["record", "audio", "text"] = "record"
    near: bool = False
    """Nearly equal sound and words too; needs time and memory of every clip."""


class Decontaminate(Part):
    """Records that touch a registered evaluation set are left out; see `lalm data register`."""

    against: tuple[Path, ...]
    """Registries."""


class Output(Part):
    """What the finished set looks like."""

    form: Literal["jsonl", "parquet", "webdataset"] = "parquet"
    """jsonl: one file a split. parquet and webdataset: shards."""
    rows_per_shard: PositiveInt = 10_000


class DataRecipe(Part):
    """A whole set."""

    name: str
    description: str = ""
    seed: int = 0
    """The same seed gives the same set, whatever the number of workers."""
    sources: tuple[Source, ...] = Field(min_length=1)
    clips: Clips = Clips()
    scenes: Scenes = Scenes()
    questions: Questions
    filters: tuple[FilterStep, ...] = ()
    dedupe: Dedupe | None = None
    decontaminate: Decontaminate | None = None
    output: Output = Output()

    @property
    def size(self) -> Size:
        """What `selection` plans by."""
        splits: tuple[Split, ...] = ("train", "validation", "test")

        def full(counts: dict[Split, int]) -> dict[Split, int]:
            return {split: counts.get(split, 0) for split in splits}

        return Size(
            longest_speech_seconds=self.clips.longest_speech_seconds,
            prompts=full(self.clips.prompts),
            closed_variants=self.clips.closed_variants,
            sounds_per_label=full(self.clips.sounds_per_label),
            instruments_per_label=full(self.clips.instruments_per_label),
            told=full(self.clips.told),
            longest_told_seconds=self.clips.longest_told_seconds,
            scenes=full(self.scenes.count),
            records={split: dict(self.questions.records.get(split, {})) for split in splits},
            effects=EffectShares(**{name: getattr(self.scenes, name) for name in EffectShares.__dataclass_fields__}),
        )

    def rounds(self, split: Split) -> dict[str, int]:
        """How often each task may ask a clip; a held-out one once, where the recipe does not name the task."""
        return {**(ROUNDS if split == "train" else {}), **self.questions.rounds}


def _unknown(kind: str, value: str, accepted: tuple[str, ...]) -> str:
    import difflib

    close = difflib.get_close_matches(value, accepted, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"the {kind} '{value}' is not known.{hint} Accepted: {', '.join(accepted)}"
