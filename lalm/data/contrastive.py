"""Micro-batches of the contrastive objective: spans of clips, and the texts among which each span must find its own.

A record is one span, its whole clip, and its text is the answer. A record whose `meta` lists events (`label`, `onset`
and `duration` in seconds, as composed scenes and strongly labelled sets have them) is one span an event: what is heard
then must point to that event's label.

The candidates of a span are the answers of its task (or all labels): all that the stage knows where they are few (a
closed set), else those of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lalm.data.dataset import MicroBatchDataset
from lalm.data.examples import Dropped, Example
from lalm.data.records import Record
from lalm.errors import AudioError, DataError

MAX_CLOSED_ANSWERS = 64
"""A task with at most so many different answers is a closed set."""
MAX_ANSWER_TOKENS = 32
"""Of a longer answer, the mean of the first so many embeddings stands for the whole."""


EVENTS = "events"
"""The group of candidates that are labels of events."""


@dataclass(frozen=True)
class Span:
    """A stretch of a clip, from `start` to `end` as shares of its length, and the text that it must point to."""

    group: str
    text: str
    start: float = 0.0
    end: float = 1.0


class ContrastiveDataset(MicroBatchDataset):
    """Item i: the clips of the i-th micro-batch; `span_clips`, `span_starts`, `span_ends [N]`; `candidate_ids [C, K]`,
    `candidate_lengths [C]`; the group of each candidate and each span as `candidate_groups [C]`, `groups [N]`; and
    `targets [N]`, the candidate that is right."""

    def __init__(self, examples: Sequence[Example], plan: Any, **options: Any):
        super().__init__(examples, plan, **options)
        texts: dict[str, set[str]] = {}
        for example in examples:
            for span in self.spans(example):
                texts.setdefault(span.group, set()).add(span.text)
        self.groups = sorted(texts)
        self.closed = {group: sorted(found) for group, found in texts.items() if len(found) <= MAX_CLOSED_ANSWERS}
        self._tokens: dict[str, list[int]] = {}

    def spans(self, example: Example) -> list[Span]:
        """What one example asks of its clip."""
        events, info = read_events(example.record), self.clips.info(example.clips[0])
        # A projector whose number of positions does not grow with the clip keeps no time.
        if not events or info is None or not self._keeps_time(info.num_samples):
            return [Span(example.record.task, str(example.record.answer))]
        seconds = info.num_samples / self.processor.sampling_rate
        return [
            Span(EVENTS, label, min(onset / seconds, 1.0), min((onset + duration) / seconds, 1.0))
            for label, onset, duration in events
        ]

    def _keeps_time(self, num_samples: int) -> bool:
        return self.processor.num_positions(num_samples) > self.processor.num_positions(num_samples // 4)

    def __getitem__(self, item: int) -> dict[str, Any]:
        chosen = [self.examples[index] for index in self.plan[item]]
        while True:
            try:
                audio = self._audio([(example.clips[0], example.audio_hashes[0]) for example in chosen])
                return audio | self._candidates(chosen)
            except AudioError as error:
                chosen = [example for example in chosen if example.clips[0] not in self.clips.quarantine]
                if not chosen:
                    raise DataError(f"micro-batch {item}: no clip of it can be read any more. {error}") from None

    def _candidates(self, chosen: Sequence[Example]) -> dict[str, torch.Tensor]:
        spans = [(clip, span) for clip, example in enumerate(chosen) for span in self.spans(example)]
        pairs: dict[tuple[str, str], int] = {}
        for group in sorted({span.group for _, span in spans}):
            of_batch = sorted({span.text for _, span in spans if span.group == group})
            for text in self.closed.get(group, of_batch):
                pairs[(group, text)] = len(pairs)
        tokens = [torch.tensor(self._ids(text)) for _, text in pairs]
        return {
            "candidate_ids": torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "candidate_lengths": torch.tensor([len(ids) for ids in tokens]),
            "candidate_groups": torch.tensor([self.groups.index(group) for group, _ in pairs]),
            "groups": torch.tensor([self.groups.index(span.group) for _, span in spans]),
            "targets": torch.tensor([pairs[(span.group, span.text)] for _, span in spans]),
            "span_clips": torch.tensor([clip for clip, _ in spans]),
            "span_starts": torch.tensor([span.start for _, span in spans]),
            "span_ends": torch.tensor([span.end for _, span in spans]),
        }

    def _ids(self, answer: str) -> list[int]:
        if answer not in self._tokens:
            ids = self.processor.tokenizer(answer, add_special_tokens=False).input_ids
            self._tokens[answer] = ids[:MAX_ANSWER_TOKENS]
        return self._tokens[answer]


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


def keep_single_clips(examples: Sequence[Example], dropped: Dropped) -> list[Example]:
    """The examples with exactly one clip, an answer and sound events; the others are listed in `dropped`."""
    kept = []
    for example in examples:
        try:
            read_events(example.record)
        except DataError as error:
            dropped.reasons[example.record.id] = str(error)
            continue
        if len(example.clips) == 1 and example.record.answer:
            kept.append(example)
        else:
            dropped.reasons[example.record.id] = "the contrastive objective needs one clip and an answer"
    return kept
