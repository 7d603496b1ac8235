"""Named scorers: one reply against one record, each with its stated rule, and their sums over a task.

Which scorer judges a record: `meta.scorer` if the record names one, else the task's own (`TASK_SCORERS`), else its
answer type's. A benchmark with an official rule is one more class in `SCORERS`. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lalm.data.records import Record
from lalm.errors import DataError, MissingPackageError
from lalm.evaluation.normalise import exact_form, is_abstention, numbers_in, transcript_form, words

YES = frozenset({"yes", "yeah", "yep", "true", "correct", "sí", "si", "oui", "да"})
NO = frozenset({"no", "nope", "not", "false", "incorrect", "non", "нет"})

_LEADING_LETTER = re.compile(
    r"^\s*(?:(?:the )?(?:answer|option|choice)(?: is)?:?\s*)?\(?([A-Za-z])(?:[).:]|\s*$)", re.I
)


@dataclass(frozen=True)
class Score:
    """The verdict on one reply."""

    correct: bool | None
    """None where the record has no truth to compare with."""
    answered: bool = True
    """False for a reply without a single letter or digit."""
    parsed: bool = True
    """False where the rule found no answer, or several, in a reply; such a reply is wrong and stays in the count."""
    details: dict[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """A named rule."""

    metric: str
    """The figure that stands for a task: "accuracy" (more is better) or "wer" (less is better)."""

    def score(self, record: Record, reply: str) -> Score:
        """Judges one reply, which may be empty; the record has an answer."""

    def totals(self, records: Sequence[Record], replies: Sequence[str], scores: Sequence[Score]) -> dict[str, float]:
        """Figures of a whole task besides the accuracy."""


class Exact:
    """Right when both have the same `exact_form`: case, punctuation, articles, number words do not count."""

    metric = "accuracy"

    def score(self, record: Record, reply: str) -> Score:
        return Score(correct=exact_form(reply) == exact_form(_truth(record)))

    def totals(self, records: Sequence[Record], replies: Sequence[str], scores: Sequence[Score]) -> dict[str, float]:
        return {}


class YesNo(Exact):
    """The reply's first word is a yes or a no, or only one of the two kinds occurs in it."""

    def score(self, record: Record, reply: str) -> Score:
        truth = self.parse(_truth(record))
        if truth is None:
            return super().score(record, reply)
        parsed = self.parse(reply)
        return Score(correct=parsed == truth, parsed=parsed is not None, details={"parsed": parsed})

    @staticmethod
    def parse(text: str) -> str | None:
        """ "yes", "no", or None."""
        said = words(text)
        for word in (said[:1], said):
            kinds = {"yes" for item in word if item in YES} | {"no" for item in word if item in NO}
            if len(kinds) == 1:
                return kinds.pop()
        return None


class Number(Exact):
    """The reply holds one number (said once or more), in digits or English words, and it is the truth's."""

    def score(self, record: Record, reply: str) -> Score:
        truth = set(numbers_in(_truth(record)))
        if len(truth) != 1:
            return super().score(record, reply)
        said = set(numbers_in(reply))
        parsed = said.pop() if len(said) == 1 else None
        return Score(
            correct=parsed is not None and abs(parsed - truth.pop()) < 1e-6,
            parsed=parsed is not None,
            details={"parsed": parsed},
        )


class Choice(Exact):
    """One option: its text, its letter, or the only option whose words stand in the reply (the longest counts)."""

    def score(self, record: Record, reply: str) -> Score:
        if not record.choices:
            return super().score(record, reply)
        picked = self.parse(reply, record.choices)
        return Score(correct=picked == record.answer, parsed=picked is not None, details={"parsed": picked})

    @staticmethod
    def parse(reply: str, choices: Sequence[str]) -> str | None:
        """The option that was chosen, or None for no option or several."""
        forms = {choice: exact_form(choice) for choice in choices}
        said = exact_form(reply)
        same = [choice for choice, form in forms.items() if form == said]
        if len(same) == 1:
            return same[0]
        letter = _LEADING_LETTER.match(reply)
        if letter and ord(letter.group(1).lower()) - ord("a") < len(choices):
            return choices[ord(letter.group(1).lower()) - ord("a")]
        found = [choice for choice, form in forms.items() if form and f" {form} " in f" {said} "]
        widest = [
            choice
            for choice in found
            if not any(other != choice and f" {forms[choice]} " in f" {forms[other]} " for other in found)
        ]
        return widest[0] if len(widest) == 1 else None


class Transcript(Exact):
    """Word errors after `transcript_form`, summed over a task and divided by its spoken words; CER likewise."""

    metric = "wer"

    def score(self, record: Record, reply: str) -> Score:
        truth, said = transcript_form(_truth(record)), transcript_form(reply)
        word_errors, num_words = _edits(truth, said, characters=False)
        character_errors, num_characters = _edits(truth, said, characters=True)
        details = {
            "word_errors": word_errors,
            "num_words": num_words,
            "character_errors": character_errors,
            "num_characters": num_characters,
        }
        return Score(correct=truth == said, details=details)

    def totals(self, records: Sequence[Record], replies: Sequence[str], scores: Sequence[Score]) -> dict[str, float]:
        total = {key: sum(item.details[key] for item in scores) for key in scores[0].details}
        return {
            "wer": total["word_errors"] / max(1, total["num_words"]),
            "cer": total["character_errors"] / max(1, total["num_characters"]),
        }


class Translation(Exact):
    """Right when exact; besides, corpus BLEU and chrF (0-100) where sacrebleu is installed."""

    def totals(self, records: Sequence[Record], replies: Sequence[str], scores: Sequence[Score]) -> dict[str, float]:
        try:
            import sacrebleu
        except ImportError:
            return {}
        truths = [[transcript_form(_truth(record)) for record in records]]
        said = [transcript_form(reply) for reply in replies]
        return {
            "bleu": sacrebleu.corpus_bleu(said, truths, tokenize="none", force=True).score,
            "chrf": sacrebleu.corpus_chrf(said, truths).score,
        }


SCORERS: dict[str, Scorer] = {
    "exact": Exact(),
    "yes_no": YesNo(),
    "number": Number(),
    "choice": Choice(),
    "transcript": Transcript(),
    "translation": Translation(),
}
ANSWER_TYPE_SCORERS = {
    "open": "exact",
    "yes_no": "yes_no",
    "number": "number",
    "choice": "choice",
    "transcript": "transcript",
}
TASK_SCORERS = {"translation": "translation"}


def scorer_name(record: Record) -> str:
    """The name of the rule that judges a record.

    Raises:
        DataError: if `meta.scorer` names no scorer.
    """
    named = record.meta.get("scorer")
    if named is not None and named not in SCORERS:
        raise DataError(f"record {record.id!r}: meta.scorer: no scorer {named!r}. Accepted: {', '.join(SCORERS)}.")
    return named or TASK_SCORERS.get(record.task) or ANSWER_TYPE_SCORERS[record.answer_type]


def score(record: Record, reply: str) -> Score:
    """Judges one reply. An unanswerable question is answered right by declining, whatever the words."""
    if record.answer is None:
        return Score(correct=None)
    scorer = SCORERS[scorer_name(record)]
    if not words(reply):
        return replace(scorer.score(record, reply), correct=False, answered=False, parsed=False)
    if not isinstance(scorer, Transcript | Translation) and is_abstention(record.answer):
        declines = is_abstention(reply)
        return Score(correct=declines, details={"unanswerable": True, "parsed": "declines" if declines else None})
    return scorer.score(record, reply)


def aggregate(records: Sequence[Record], replies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures of each task, in order of first appearance: `n`, `metric`, `accuracy` or `wer`, `unanswered`, ...

    Records without a truth are left out. A task is measured in WER if all of its records are transcripts; its share of
    faultless transcripts is then `exact`. Replies that are empty (`unanswered`), in which no answer is found
    (`unparsed`) or that decline an answerable question (`declined`) stay in the count, and are told beside the figure.

    Raises:
        ValueError: if the counts of records and replies differ.
    """
    tasks: dict[str, list[tuple[Record, str, Score]]] = {}
    for record, reply in zip(records, replies, strict=True):
        if record.answer is not None:
            tasks.setdefault(record.task, []).append((record, reply, score(record, reply)))
    return {task: _task_figures(*zip(*rows, strict=True)) for task, rows in tasks.items()}


def _task_figures(records: Sequence[Record], replies: Sequence[str], scores: Sequence[Score]) -> dict[str, Any]:
    names = sorted({scorer_name(record) for record in records})
    scorer = SCORERS[names[0]] if len(names) == 1 else SCORERS["exact"]
    accuracy = sum(bool(item.correct) for item in scores) / len(scores)
    totals = scorer.totals(records, replies, scores)
    figures: dict[str, Any] = {"n": len(scores), "metric": scorer.metric, "scorer": "+".join(names)}
    if scorer.metric == "accuracy":
        figures["accuracy"] = accuracy
    else:
        figures |= {scorer.metric: totals.pop(scorer.metric), "exact": accuracy}
    figures |= totals
    figures["unanswered"] = sum(not item.answered for item in scores)
    figures["declined"] = sum(
        is_abstention(reply) and not is_abstention(record.answer or "")
        for record, reply in zip(records, replies, strict=True)
    )
    figures["unparsed"] = sum(item.answered and not item.parsed for item in scores)
    return figures


def headline(figures: Mapping[str, Any]) -> float:
    """The figure that stands for a task: its accuracy, or its WER."""
    return figures[figures["metric"]]


def _truth(record: Record) -> str:
    if record.answer is None:
        raise DataError(f"record {record.id!r}: has no closing assistant turn to score against.")
    return record.answer


def _edits(truth: str, said: str, *, characters: bool) -> tuple[int, int]:
    """Errors, and length of the truth, in words or in characters."""
    if not truth:
        return len(said if characters else said.split()), 0
    try:
        import jiwer
    except ImportError:
        raise MissingPackageError("jiwer", "Word error rates", "train") from None
    output = (jiwer.process_characters if characters else jiwer.process_words)(truth, said)
    errors = output.substitutions + output.deletions + output.insertions
    return errors, output.hits + output.substitutions + output.deletions
