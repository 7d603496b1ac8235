"""What the objectives beside the decoder read: clips, the answers among which each must find its own, its class.

The candidates of a record are the answers of its task: all that the stage knows where they are few (a closed set), else
those of the micro-batch. The classes of a stage are the answers of its closed sets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from lalm.data.examples import Dropped, Example
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
    ):
        self.objectives, self.tokenizer = set(objectives), tokenizer
        usable = [example for example in examples if is_alignable(example)]
        self.tasks = sorted({example.record.task for example in usable})
        answers = {task: sorted({str(e.record.answer) for e in usable if e.record.task == task}) for task in self.tasks}
        self.closed = {task: found for task, found in answers.items() if len(found) <= MAX_CLOSED_ANSWERS}
        self.keys = {pair: n for n, pair in enumerate((task, text) for task in self.tasks for text in answers[task])}
        """(task, answer) -> its number in the stage, the same in every process."""
        found = [(task, text) for task in self.closed for text in self.closed[task]]
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
        usable = [example for example in chosen if is_alignable(example)]
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

    def _texts(self, usable: Sequence[Example], rows: Mapping[str, int]) -> dict[str, torch.Tensor]:
        places: dict[tuple[str, str], int] = {}
        for task in sorted({example.record.task for example in usable}):
            of_batch = sorted({str(example.record.answer) for example in usable if example.record.task == task})
            for answer in self.closed.get(task, of_batch):
                places[task, answer] = len(places)
        ids = [self._ids(answer) for _, answer in places]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True) if ids else torch.zeros(0, 1, dtype=torch.long)
        return {
            "audio_rows": _numbers(rows[example.audio_hashes[0]] for example in usable),
            "candidate_ids": padded,
            "candidate_lengths": _numbers(len(item) for item in ids),
            "candidate_groups": _numbers(self.tasks.index(task) for task, _ in places),
            "candidate_keys": _numbers(self.keys[pair] for pair in places),
            "groups": _numbers(self.tasks.index(example.record.task) for example in usable),
            "targets": _numbers(places[example.record.task, str(example.record.answer)] for example in usable),
        }

    def _ids(self, answer: str) -> torch.Tensor:
        if answer not in self._tokens:
            ids = self.tokenizer(answer, add_special_tokens=False).input_ids
            self._tokens[answer] = torch.tensor(ids[:MAX_ANSWER_TOKENS], dtype=torch.long)
        return self._tokens[answer]


def is_alignable(example: Example) -> bool:
    """Whether a record has exactly one clip and an answer, so that the two can be compared."""
    return len(example.clips) == 1 and bool(example.record.answer)


def keep_single_clips(examples: Sequence[Example], dropped: Dropped) -> list[Example]:
    """The examples with exactly one clip and an answer; the others are listed in `dropped`."""
    kept = []
    for example in examples:
        if is_alignable(example):
            kept.append(example)
        else:
            dropped.reasons[example.record.id] = "the stage's objectives need one clip and an answer"
    return kept


def _numbers(values: Iterable[int]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.long)
