"""Which stretch of a clip must point to which text: the whole clip to its answer, or each of its events to its label.

A record whose `meta` lists events (`label`, `onset` and `duration` in seconds, as composed scenes and strongly labelled
sets have them) is one span an event: what is heard then must point to that event's label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lalm.data.clips import ClipStore
from lalm.data.examples import Example
from lalm.data.records import Record
from lalm.errors import DataError

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor

EVENTS = "events"
"""The group of texts that are labels of events."""


@dataclass(frozen=True)
class Span:
    """A stretch of a clip, from `start` to `end` as shares of its length, and the text that it must point to."""

    group: str
    text: str
    start: float = 0.0
    end: float = 1.0


def spans_of(example: Example, seconds: float | None) -> list[Span]:
    """The spans of an example with one clip of `seconds`; None where time within the clip means nothing."""
    events = read_events(example.record) if seconds else []
    if not events or not seconds:
        return [Span(example.record.task, str(example.record.answer))]
    return [
        Span(EVENTS, label, min(onset / seconds, 1.0), min((onset + duration) / seconds, 1.0))
        for label, onset, duration in events
    ]


def read_events(record: Record) -> list[tuple[str, float, float]]:
    """(label, onset, duration), times in seconds, of each event that a record's `meta` lists; none for most records.

    Raises:
        DataError: if an event lacks one of the three, or starts or lasts less than nothing.
    """
    events = []
    for event in record.meta.get("events") or ():
        try:
            label, onset, duration = str(event["label"]), float(event["onset"]), float(event["duration"])
        except (TypeError, KeyError, ValueError):
            label, onset, duration = "", -1.0, 0.0
        if not label or onset < 0 or duration <= 0:
            raise DataError(
                f"meta.events: {event!r} is no event. It needs label, onset >= 0 and duration > 0 (seconds)."
            )
        events.append((label, onset, duration))
    return events


def clip_seconds(clips: ClipStore, processor: LalmProcessor) -> Callable[[str], float | None]:
    """Path of a clip -> its seconds; None if a projector gives it positions that do not follow its time."""

    def seconds(path: str) -> float | None:
        info = clips.info(path)
        if processor.step_rule is not None:
            return None
        if info is None or processor.num_positions(info.num_samples) <= processor.num_positions(info.num_samples // 4):
            return None
        return info.num_samples / processor.sampling_rate

    return seconds
