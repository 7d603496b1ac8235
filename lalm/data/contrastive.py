"""Micro-batches of the contrastive objective: clips, and the answers among which each clip must find its own.

The candidates of a record are the answers of its task: all that the stage knows where they are few (a closed set), else
those of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lalm.data.dataset import MicroBatchDataset
from lalm.data.examples import Dropped, Example
from lalm.errors import AudioError, DataError

MAX_CLOSED_ANSWERS = 64
"""A task with at most so many different answers is a closed set."""
MAX_ANSWER_TOKENS = 32
"""Of a longer answer, the mean of the first so many embeddings stands for the whole."""


class ContrastiveDataset(MicroBatchDataset):
    """Item i: the clips of the i-th micro-batch, `candidate_ids [C, K]`, `candidate_lengths [C]`, the task of each
    candidate and each clip as `candidate_groups [C]`, `groups [N]`, and `targets [N]`, the candidate that is right."""

    def __init__(self, examples: Sequence[Example], plan: Any, **options: Any):
        super().__init__(examples, plan, **options)
        self.tasks = sorted({example.record.task for example in examples})
        answers = {
            task: sorted({str(e.record.answer) for e in examples if e.record.task == task}) for task in self.tasks
        }
        self.closed = {task: found for task, found in answers.items() if len(found) <= MAX_CLOSED_ANSWERS}
        self._tokens: dict[str, list[int]] = {}

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
        pairs: dict[tuple[int, str], int] = {}
        for task in sorted({example.record.task for example in chosen}):
            of_batch = sorted({str(example.record.answer) for example in chosen if example.record.task == task})
            for answer in self.closed.get(task, of_batch):
                pairs[(self.tasks.index(task), answer)] = len(pairs)
        tokens = [torch.tensor(self._ids(answer)) for _, answer in pairs]
        groups = [self.tasks.index(example.record.task) for example in chosen]
        targets = [pairs[(group, str(e.record.answer))] for group, e in zip(groups, chosen, strict=True)]
        return {
            "candidate_ids": torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "candidate_lengths": torch.tensor([len(ids) for ids in tokens]),
            "candidate_groups": torch.tensor([group for group, _ in pairs]),
            "groups": torch.tensor(groups),
            "targets": torch.tensor(targets),
        }

    def _ids(self, answer: str) -> list[int]:
        if answer not in self._tokens:
            ids = self.processor.tokenizer(answer, add_special_tokens=False).input_ids
            self._tokens[answer] = ids[:MAX_ANSWER_TOKENS]
        return self._tokens[answer]


def keep_single_clips(examples: Sequence[Example], dropped: Dropped) -> list[Example]:
    """The examples with exactly one clip and an answer; the others are listed in `dropped`."""
    kept = []
    for example in examples:
        if len(example.clips) == 1 and example.record.answer:
            kept.append(example)
        else:
            dropped.reasons[example.record.id] = "the contrastive objective needs one clip and an answer"
    return kept
