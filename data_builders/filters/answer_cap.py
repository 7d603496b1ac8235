"""Balance: no answer of a task may lead the rarest by more than a set share, as DAQA guards it (arXiv 1911.11655).

For closed tasks of a finished set: `questions.balance` guards questions while they are asked. Which rows of a leading
answer go is decided by a hash of their id, so that the order of the file does not matter.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable

from data_builders.filters.base import KEPT, Verdict, rejected
from data_builders.filters.blind import MOST_ANSWERS
from lalm.data.records import Record

LEAD_SHARE = 0.05
LEAST_LEAD = 2


class AnswerCap:
    """Rejects records whose answer leads the rarest answer of the task by more than the share of the expected count.

    Open tasks (more than MOST_ANSWERS different answers) pass. Remembers the ids that go.
    """

    name = "balance"

    def __init__(self, *, lead_share: float = LEAD_SHARE, most: int | None = None):
        """`lead_share` is of the mean count of an answer; `most` caps every answer besides, in open tasks too."""
        self.lead_share, self.most = lead_share, most
        self._dropped: set[str] = set()
        self._report: dict[str, dict[str, dict[str, int]]] = {}

    def prepare(self, records: Iterable[Record]) -> None:
        """Counts the answers and chooses what goes."""
        ids: dict[str, dict[str, list[tuple[bytes, str]]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            if record.answer is not None:
                key = hashlib.sha256(record.id.encode()).digest()[:8]
                ids[record.task][record.answer].append((key, record.id))
        for task, answers in ids.items():
            counts = Counter({answer: len(rows) for answer, rows in answers.items()})
            cap = self._cap(counts)
            after = {}
            for answer, rows in answers.items():
                extra = heapq.nlargest(len(rows) - cap, rows) if cap is not None and len(rows) > cap else []
                self._dropped.update(id_ for _, id_ in extra)
                after[answer] = len(rows) - len(extra)
            if len(counts) <= MOST_ANSWERS:
                self._report[task] = {"before": dict(sorted(counts.items())), "after": dict(sorted(after.items()))}

    def judge(self, record: Record) -> Verdict:
        """Rejects what `prepare` chose."""
        return rejected("its answer leads", record.answer) if record.id in self._dropped else KEPT

    def report(self) -> dict[str, dict[str, dict[str, int]]]:
        """Counts of each answer of the closed tasks, before and after."""
        return self._report

    def _cap(self, counts: Counter[str]) -> int | None:
        caps = [self.most] if self.most is not None else []
        if 2 <= len(counts) <= MOST_ANSWERS:
            expected = sum(counts.values()) / len(counts)
            caps.append(min(counts.values()) + max(LEAST_LEAD, int(self.lead_share * expected)))
        return min(caps, default=None)
