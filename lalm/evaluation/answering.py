"""What a model replies to records under one condition: their own clips, silence, or another record's clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from lalm.data.records import Record
from lalm.evaluation.scorers import SCORERS, Transcript, Translation, scorer_name
from lalm.evaluation.states import ClipStates
from lalm.inference.generate import Request, generate_answers
from lalm.recipe.schema import GenerationSection

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

TRANSCRIPT_TOKENS = 40
"""New tokens that a transcript or a translation may have, and more where training answers are longer."""
ANSWER_TOKENS = 12
"""The same of other answers."""
REQUESTS_HELD = 128
"""Requests whose states are in memory at once."""

Condition = Literal["reply", "silent", "swapped"]
"""What is heard: the record's own clips, silence of their lengths, or the clips of its partner."""


def token_budgets(
    records: Sequence[Record], train_records: Sequence[Record], processor: LalmProcessor
) -> dict[str, int]:
    """Most new tokens of each task: short, but room for any answer like those of training."""
    budgets = {}
    for record in records:
        if record.task not in budgets:
            spoken = isinstance(SCORERS[scorer_name(record)], Transcript | Translation)
            answers = {other.answer for other in train_records if other.task == record.task and other.answer}
            lengths = [len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in answers]
            budgets[record.task] = max(TRANSCRIPT_TOKENS if spoken else ANSWER_TOKENS, max(lengths, default=0) + 2)
    return budgets


@dataclass
class Answering:
    """A model ready to reply. `budgets`: most new tokens of each task; `options` may lower them."""

    model: LalmForConditionalGeneration
    processor: LalmProcessor
    bank: ClipStates
    options: GenerationSection
    batch_size: int
    budgets: Mapping[str, int]

    def __call__(
        self,
        records: Sequence[Record],
        condition: Condition,
        partners: Sequence[int | None],
        advance: Callable[[int], None],
        asked: Sequence[int],
    ) -> list[str | None]:
        """The reply to each record; None where it is not asked, or the condition does not apply (no clip, no partner).

        Args:
            partners: for each record, the index of the record whose clips it gets when `swapped`.
            advance: called with the number of records that were just finished.
            asked: indices of the records to ask.
        """
        replies: list[str | None] = [None] * len(records)
        audible = [i for i in asked if self._applies(records[i], condition, partners[i])]
        advance(len(asked) - len(audible))
        for budget in sorted({self.budgets[records[i].task] for i in audible}):
            group = [i for i in audible if self.budgets[records[i].task] == budget]
            group.sort(key=lambda i: -sum(self.bank.num_samples(path) or 0 for path in records[i].audio))
            options = self.options.model_copy(update={"max_new_tokens": min(budget, self.options.max_new_tokens)})
            for start in range(0, len(group), REQUESTS_HELD):
                held = group[start : start + REQUESTS_HELD]
                requests = [
                    Request(records[i].prompt_turns(), states=self._states(records, i, condition, partners[i]))
                    for i in held
                ]
                texts = generate_answers(
                    self.model, self.processor, requests, options, batch_size=self.batch_size, progress=advance
                )
                for i, text in zip(held, texts, strict=True):
                    replies[i] = text
        return replies

    @staticmethod
    def _applies(record: Record, condition: str, partner: int | None) -> bool:
        if condition == "swapped":
            return partner is not None
        return condition == "reply" or bool(record.audio)

    def _states(
        self, records: Sequence[Record], index: int, condition: Condition, partner: int | None
    ) -> tuple[Tensor, ...]:
        paths = records[partner if condition == "swapped" and partner is not None else index].audio
        if condition == "silent":
            return tuple(self.bank.silence_states(self.bank.num_samples(path) or 0 for path in paths))
        return tuple(states for states in self.bank.clip_states(paths) if states is not None)
