"""A Recording of a corpus as the Clip that the questions read, its facts under the names that the families know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_builders.clips import Clip, Kind, Skipped
from data_builders.corpora.base import Corpus, Recording
from data_builders.corpora.places import probe_seconds, read_audio
from lalm.errors import AudioError

LONGEST_RECORDING_SECONDS = 3600.0
ASKED_OF_THE_WHOLE = ("captions", "events", "exchanges", "emotion", "speaker", "tempo_bpm", "key")
"""Facts of a whole recording: it is stored uncut, and asked by the families of `questions/told.py`."""


def corpus_clips(corpus: Corpus, folder: Path, skip: Callable[[Skipped], None]) -> Iterator[Clip]:
    """The usable recordings of a corpus as clips; `skip` is given every other one with the reason."""
    for recording in corpus.recordings(folder, lambda problem: skip(Skipped(corpus.name, str(problem)))):
        try:
            seconds = probe_seconds(recording.audio)
        except AudioError as error:
            skip(Skipped(recording.id, str(error)))
            continue
        if not 0 < seconds <= LONGEST_RECORDING_SECONDS:
            skip(Skipped(recording.id, f"lasts {seconds:g} s"))
            continue
        yield clip_of(corpus, recording, seconds)


def clip_of(corpus: Corpus, recording: Recording, seconds: float) -> Clip:
    """One recording as a clip of `seconds` seconds, its audio read where it lies."""
    audio, kind = recording.audio, kind_of(recording)
    label = recording.labels[0] if len(recording.labels) == 1 else None
    if kind == "instrument":
        label = recording.family or recording.instrument
    in_place = audio.member is None and not audio.is_part
    name = f"{corpus.name}-{_file_name(recording.id)}"
    return Clip(
        id=name,
        path=audio.path if in_place else None,
        seconds=seconds,
        source=corpus.name,
        licence=recording.licence or corpus.licence,
        group=f"{corpus.name}-{recording.group}" if recording.group else name,
        kind=kind,
        language=recording.language,
        text=recording.transcript,
        label=label,
        facts=facts_of(corpus, recording, kind),
        provenance={"corpus": corpus.name, "source_id": recording.id, **recording.extra},
        render=None if in_place else partial(read_audio, audio),
    )


def kind_of(recording: Recording) -> Kind:
    """Speech where words, language, speaker or emotion are told; an instrument; else a sound."""
    if recording.transcript or recording.language or recording.speaker or recording.emotion:
        return "speech"
    return "instrument" if recording.instrument or recording.family else "sound"


def facts_of(corpus: Corpus, recording: Recording, kind: Kind) -> dict[str, Any]:
    """The facts that are told, under the names that the families read."""
    told: dict[str, Any] = {
        "split": recording.split,
        "key": recording.id if kind == "speech" else recording.key,
        "captions": list(recording.captions) if recording.other is None else [],
        "labels": list(recording.labels),
        "translations": dict(recording.translations),
        "speaker": recording.speaker,
        "sex": recording.sex,
        "emotion": recording.emotion,
        "notes": [recording.pitch] if recording.pitch is not None else None,
        "tempo_bpm": recording.tempo_bpm,
        "told_events": [[event.label, event.onset, event.offset] for event in recording.events],
        "exchanges": [list(pair) for pair in recording.exchanges],
        "told": any(getattr(recording, name) for name in ASKED_OF_THE_WHOLE) and recording.other is None,
        "whole": not corpus.isolated and kind != "speech",
    }
    return {name: value for name, value in told.items() if value}


def _file_name(text: str) -> str:
    """An id as a part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_.+" else "_" for letter in text)
