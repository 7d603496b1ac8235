"""What a corpus in a folder holds: counts, hours, splits, facts, and every problem, read once as a stream."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from data_builders.corpora import corpus_named
from data_builders.corpora.base import FACTS, MAX_MALFORMED, Problem
from data_builders.corpora.places import probe_seconds
from lalm.errors import AudioError

NO_SPLIT = "none told"
KEPT_PROBLEMS = 200
"""How many problems are remembered; all are counted."""
LONGEST_SECONDS = 24 * 3600.0


@dataclass
class Scan:
    """What was found. Seconds are of the recordings whose audio can be opened."""

    recordings: int = 0
    seconds: float = 0.0
    shortest: float = float("inf")
    longest: float = 0.0
    splits: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    left_out: int = 0
    """Rows that are no fault of the table: audio that is not there, a blacklist."""
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    def told(self, problem: str) -> None:
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)


def scan(name: str, folder: Path, *, max_malformed: int = MAX_MALFORMED, open_audio: bool = True) -> Scan:
    """Reads a corpus once. `open_audio` opens every recording's header; without it, lengths are what the tables tell.

    Raises:
        DataError: for an unknown corpus, another layout, or too many malformed rows.
    """
    corpus = corpus_named(name)
    found = Scan()

    def report(problem: Problem) -> None:
        found.malformed += not problem.harmless
        found.left_out += problem.harmless
        found.told(str(problem))

    for recording in corpus.recordings(folder, report, max_malformed=max_malformed):
        seconds = recording.audio.seconds
        if open_audio:
            try:
                seconds = probe_seconds(recording.audio)
                if not 0 < seconds <= LONGEST_SECONDS:
                    raise AudioError(f"{recording.audio.path}: lasts {seconds:g} s")
            except AudioError as error:
                found.unreadable += 1
                found.told(str(error))
                continue
        found.recordings += 1
        if seconds is not None:
            found.seconds += seconds
            found.shortest, found.longest = min(found.shortest, seconds), max(found.longest, seconds)
        found.splits[recording.split or NO_SPLIT] += 1
        found.licences[recording.licence or corpus.licence] += 1
        found.facts.update(fact for fact in FACTS if getattr(recording, fact))
    return found
