"""What the objectives beside the decoder read: spans of clips, the texts among which each must find its own, its class.

The candidates of a span are the answers of its task (or all labels of events): all that the stage knows where they are
few (a closed set), else those of the micro-batch. Closed sets that share a text are one set: what is a violin in one
task must not pass for a tabla of another. The classes of a stage are the answers of its closed sets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lalm.data.examples import Example
from lalm.data.spans import Span, read_events, spans_of
from lalm.errors import DataError

MAX_CLOSED_ANSWERS = 64
"""A task with at most so many different answers is a closed set."""
MAX_ANSWER_TOKENS = 32
"""Of a longer answer, the mean of the first so many embeddings stands for the whole."""


class AlignmentItems:
    """Makes the `objective_items` of a micro-batch (see `lalm.model.objectives.alignment_losses`).

    Args:
        examples: all of the stage.
        objectives: those of the stage; `language_model` needs nothing here.
        tokenizer: the language model's.
        classes: those of the training records, for held-out ones.
        seconds: length of the clip at a path, see `lalm.data.spans.clip_seconds`; without it a clip is one span.

    Raises:
        DataError: if a classification stage has no closed set of answers.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        objectives: Collection[str],
        tokenizer: Any,
        *,
        classes: Sequence[tuple[str, str]] | None = None,
        seconds: Callable[[str], float | None] = lambda path: None,
    ):
        self.objectives, self.tokenizer, self._seconds = set(objectives), tokenizer, seconds
        texts = _by_group((span.group, span.text) for example in _usable(examples) for span in self.spans(example))
        few = {group: found for group, found in texts.items() if len(found) <= MAX_CLOSED_ANSWERS}
        self._set_of = _joined(few)
        texts = _by_group((self._set_of.get(group, group), text) for group, found in texts.items() for text in found)
        self.groups = sorted(texts)
        self.closed = {group: texts[group] for group in set(self._set_of.values())}
        self.keys = {pair: n for n, pair in enumerate((group, text) for group in self.groups for text in texts[group])}
        """(group, text) -> its number in the stage, the same in every process."""
        answers = _by_group((example.record.task, str(example.record.answer)) for example in _usable(examples))
        found = [(task, text) for task, few in answers.items() if len(few) <= MAX_CLOSED_ANSWERS for text in few]
        self.classes: list[tuple[str, str]] = list(found if classes is None else classes)
        """(task, answer) of each class."""
        if "classification" in self.objectives and not self.classes:
            raise DataError(
                f"the classification objective needs a task of at most {MAX_CLOSED_ANSWERS} different answers, each on "
                f"one clip. The stage has: {', '.join(f'{t} ({len(a)})' for t, a in answers.items()) or 'none'}."
            )
        self._class_numbers = {pair: number for number, pair in enumerate(self.classes)}
        self._tokens: dict[str, torch.Tensor] = {}

    def __call__(self, chosen: Sequence[Example], rows: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """Items of a micro-batch.

        Args:
            chosen: its examples; those without exactly one clip and an answer count for the decoder only.
            rows: hash of a clip -> its place among the clips of the micro-batch.
        """
        usable = list(_usable(chosen))
        items = {}
        if self.objectives & {"contrastive", "matching"}:
            items |= self._texts(usable, rows)
        if "classification" in self.objectives:
            known = [e for e in usable if (e.record.task, str(e.record.answer)) in self._class_numbers]
            items |= {
                "class_rows": _numbers(rows[example.audio_hashes[0]] for example in known),
                "class_targets": _numbers(self._class_numbers[e.record.task, str(e.record.answer)] for e in known),
            }
        return items

    def spans(self, example: Example) -> list[Span]:
        """What an example asks of its clip."""
        return spans_of(example, self._seconds(example.clips[0]))

    def _joined_spans(self, example: Example) -> list[Span]:
        return [replace(span, group=self._set_of.get(span.group, span.group)) for span in self.spans(example)]

    def _texts(self, usable: Sequence[Example], rows: Mapping[str, int]) -> dict[str, torch.Tensor]:
        spans = [(rows[example.audio_hashes[0]], span) for example in usable for span in self._joined_spans(example)]
        places: dict[tuple[str, str], int] = {}
        for group, of_batch in _by_group((span.group, span.text) for _, span in spans).items():
            for text in self.closed.get(group, of_batch):
                places[group, text] = len(places)
        ids = [self._ids(text) for _, text in places]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True) if ids else torch.zeros(0, 1, dtype=torch.long)
        return {
            "audio_rows": _numbers(row for row, _ in spans),
            "span_starts": torch.tensor([span.start for _, span in spans]),
            "span_ends": torch.tensor([span.end for _, span in spans]),
            "candidate_ids": padded,
            "candidate_lengths": _numbers(len(item) for item in ids),
            "candidate_groups": _numbers(self.groups.index(group) for group, _ in places),
            "candidate_keys": _numbers(self.keys[pair] for pair in places),
            "groups": _numbers(self.groups.index(span.group) for _, span in spans),
            "targets": _numbers(places[span.group, span.text] for _, span in spans),
        }

    def _ids(self, answer: str) -> torch.Tensor:
        if answer not in self._tokens:
            # As it stands within a sentence: most tokenizers know a word after a space as one token.
            ids = min(
                (self.tokenizer(text, add_special_tokens=False).input_ids for text in (f" {answer}", answer)), key=len
            )
            self._tokens[answer] = torch.tensor(ids[:MAX_ANSWER_TOKENS], dtype=torch.long)
        return self._tokens[answer]


def why_not_alignable(example: Example) -> str | None:
    """Why a record's clip and text cannot be compared; None if they can."""
    if len(example.clips) != 1 or not example.record.answer:
        return "the stage's objectives need one clip and an answer"
    try:
        read_events(example.record)
    except DataError as error:
        return str(error)
    return None


def _usable(examples: Iterable[Example]) -> Iterator[Example]:
    return (example for example in examples if why_not_alignable(example) is None)


def _by_group(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group -> its different texts, both in order."""
    found: dict[str, set[str]] = {}
    for group, text in pairs:
        found.setdefault(group, set()).add(text)
    return {group: sorted(found[group]) for group in sorted(found)}


def _joined(closed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Closed set -> the name of the set that it is part of: sets with a text in common become one."""
    name_of = {group: group for group in closed}
    owner: dict[str, str] = {}
    for group, texts in closed.items():
        for text in texts:
            first, second = name_of[owner.setdefault(text, group)], name_of[group]
            name_of = {key: first if name == second else name for key, name in name_of.items()}
    return name_of


def _numbers(values: Iterable[int]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.long)
