"""The guard on answers: no answer may lead so far that it can be guessed without listening.

After DAQA (arXiv 1911.11655): an answer that is already the most frequent of its key is refused once it leads the
rarest by more than a set share of the expected count.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from data_builders.questions.base import Guard, Question

LEAD_SHARE = 0.05


class AnswerBalance:
    """Counts the guarded answers of accepted questions and refuses a question whose answer would lead."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def accepts(self, question: Question) -> bool:
        """Whether the question keeps every one of its guards level; an accepted question is counted."""
        for guard in question.guards:
            if not self._level(guard):
                return False
        for guard in question.guards:
            self.counts[guard.key][guard.answer] += 1
        return True

    def _level(self, guard: Guard) -> bool:
        counts = self.counts[guard.key]
        count = counts.get(guard.answer, 0)
        if count < guard.lead:  # No lead is longer than the count.
            return True
        lead = count - min([counts.get(answer, 0) for answer in guard.space])
        return lead < guard.lead or lead < LEAD_SHARE * (sum(counts.values()) / len(guard.space))
