"""The blind-answer test: what can be answered without the audio teaches a model not to listen.

A scorer that hears nothing gives each option of a closed question a score. Per task, the share of questions that it
gets right is the blind baseline; chance is one pick among the options. Where the share lies above chance by more than
sampling explains, the questions that it is surest of are dropped (or marked) until the rest is at chance.

The default scorer is a bag-of-words classifier, cross-validated so that no clip helps to answer itself: it finds words
of the question that give the answer away, answers that are simply frequent, positions and lengths. A language model
(`blind_lm.py`) also finds what the world knows.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np

from data_builders.filters.base import KEPT, Verdict, rejected
from lalm.data.records import Record
from lalm.errors import DataError, MissingPackageError

MOST_ANSWERS = 20
"""A task without listed choices is closed, too, if it has at most so many different answers and asks each often."""
STANDARD_ERRORS = 2.0
FOLDS = 5
BATCH = 1024
MOST_HELD = 300_000
"""Up to so many questions keep their hashed features between passes (about 1 kB each); more are hashed at each pass."""
WORD = re.compile(r"\w+", re.UNICODE)


class BlindScorer(Protocol):
    """Scores the options of closed questions without audio."""

    def fit(self, questions: Callable[[], Iterable[Closed]]) -> None:
        """Sees every question with its answer; a scorer that learns nothing passes."""
        ...

    def score(self, question: Closed) -> Sequence[float]:
        """One log-likelihood, or any score that grows with it, for each option."""
        ...

    # A scorer may also have score_many(questions), which gives the same for a list of them, in order.


@dataclass(frozen=True)
class Closed:
    """A question with its options; `group` is the clip, which no fold may share."""

    id: str
    task: str
    text: str
    options: tuple[str, ...]
    answer: int
    group: str


@dataclass(frozen=True)
class Hashed:
    """A batch of questions as the classifier sees it: for each option its sparse row, whether it is right, its fold."""

    features: Any
    labels: np.ndarray
    folds: np.ndarray
    num_options: list[int]


@dataclass(frozen=True)
class TaskBlind:
    """One task's blind baseline. Shares are 0 to 1. `dropped` were right and left out, or marked."""

    questions: int
    right: int
    accuracy: float
    chance: float
    majority: float
    longest_option: float
    dropped: int
    accuracy_after: float


class Blind:
    """Drops or marks closed questions that a scorer answers without audio, down to chance.

    Remembers one small row for each closed question (about 200 bytes).
    """

    name = "blind"

    def __init__(
        self,
        scorer: BlindScorer | None = None,
        *,
        action: Literal["drop", "mark"] = "drop",
        standard_errors: float = STANDARD_ERRORS,
    ):
        """
        Raises:
            DataError: for an unknown action.
        """
        if action not in ("drop", "mark"):
            raise DataError(f"blind: action '{action}' is not known. Accepted: drop, mark.")
        self.scorer = scorer if scorer is not None else BagOfWords()
        self.action = action
        self.standard_errors = standard_errors
        self._found: dict[str, bool] = {}
        self._guessed: dict[str, float] = {}
        self._tasks: dict[str, TaskBlind] = {}

    def prepare(self, records: Iterable[Record]) -> None:
        """Fits the scorer and settles which questions go."""
        questions = closed_questions(records)
        self.scorer.fit(lambda: questions)
        by_task: dict[str, list[tuple[float, str, bool, Closed]]] = defaultdict(list)
        many = getattr(self.scorer, "score_many", None) or (lambda rows: map(self.scorer.score, rows))
        for question, found in zip(questions, many(questions), strict=True):
            scores = np.asarray(found, np.float64)
            right, sureness = _right(scores, question.answer)
            self._found[question.id] = right
            by_task[question.task].append((sureness, question.id, right, question))
        for task, rows in by_task.items():
            self._tasks[task] = self._settle(rows)

    def judge(self, record: Record) -> Verdict:
        """Rejects (or notes) a question that is among those its task has too many of."""
        if record.id not in self._found:
            return Verdict(True, note="open")
        if record.id not in self._guessed:
            return KEPT
        sureness = round(self._guessed[record.id], 4)
        if self.action == "mark":
            return Verdict(True, note={"answered_without_audio": sureness})
        return rejected("is answered without audio", sureness)

    def report(self) -> dict[str, dict[str, float]]:
        """The blind baseline of each task, for the card."""
        return {task: asdict(found) for task, found in sorted(self._tasks.items())}

    def _settle(self, rows: list[tuple[float, str, bool, Closed]]) -> TaskBlind:
        """Chooses how many right answers are above chance, and takes the surest of them."""
        count, right = len(rows), sum(row[2] for row in rows)
        chances = [1 / len(row[3].options) for row in rows]
        chance = sum(chances) / count
        error = math.sqrt(sum(share * (1 - share) for share in chances)) / count
        excess = 0
        if right / count > chance + self.standard_errors * error:
            excess = min(right, math.ceil((right - chance * count) / (1 - chance) - 1e-9))
        surest = sorted((row for row in rows if row[2]), key=lambda row: (-row[0], row[1]))[:excess]
        self._guessed.update({row[1]: row[0] for row in surest})
        answers: dict[str, int] = defaultdict(int)
        for row in rows:
            answers[row[3].options[row[3].answer]] += 1
        longest = sum(_longest(row[3].options) == row[3].answer for row in rows)
        left = count - excess
        return TaskBlind(
            questions=count,
            right=right,
            accuracy=right / count,
            chance=chance,
            majority=max(answers.values()) / count,
            longest_option=longest / count,
            dropped=excess,
            accuracy_after=(right - excess) / left if left else 0.0,
        )


class BagOfWords:
    """Which option is right, from words alone: the default blind scorer.

    A logistic regression (scikit-learn) over hashed features of a question and one option: the option, its pairings
    with the words of the question, its place, whether it is the longest or shortest. Fitted in FOLDS folds by clip, in
    batches; each question is scored by the model that did not see its clip.
    """

    def __init__(self, *, folds: int = FOLDS, seed: int = 0, passes: int = 5):
        self.folds = folds
        self.seed = seed
        self.passes = passes

    def fit(self, questions: Callable[[], Iterable[Closed]]) -> None:
        """
        Raises:
            MissingPackageError: without scikit-learn.
        """
        try:
            from sklearn.feature_extraction import FeatureHasher
            from sklearn.linear_model import SGDClassifier
        except ImportError:
            raise MissingPackageError("scikit-learn", "the blind-answer test", "data") from None
        self._hasher = FeatureHasher(n_features=2**20, input_type="string", alternate_sign=False)
        self._models = [
            SGDClassifier(loss="log_loss", alpha=1e-5, random_state=self.seed, average=True) for _ in range(self.folds)
        ]
        held: list[Hashed] | None = []
        for number in range(self.passes):
            for batch in self._batches(questions()) if held is None or number == 0 else held:
                self._learn(batch)
                if number == 0 and held is not None:
                    held.append(batch)
                    if len(held) * BATCH > MOST_HELD:
                        held = None

    def score(self, question: Closed) -> Sequence[float]:
        """The log-odds of each option, by the model of the fold that left the clip out."""
        return next(self.score_many([question]))

    def score_many(self, questions: Iterable[Closed]) -> Iterator[list[float]]:
        """`score` of each question, in order."""
        for batch in self._batches(questions):
            scores = np.zeros(len(batch.folds))
            for fold, model in enumerate(self._models):
                if (chosen := batch.folds == fold).any() and hasattr(model, "coef_"):
                    scores[chosen] = model.decision_function(batch.features[chosen])
            yield from (part.tolist() for part in np.split(scores, np.cumsum(batch.num_options)[:-1]))

    def _batches(self, questions: Iterable[Closed]) -> Iterator[Hashed]:
        waiting = iter(questions)
        while batch := list(islice(waiting, BATCH)):
            yield Hashed(
                self._hasher.transform(row for question in batch for row in features_of(question)),
                np.array([place == question.answer for question in batch for place in range(len(question.options))]),
                np.array([self._fold(question.group) for question in batch for _ in question.options]),
                [len(question.options) for question in batch],
            )

    def _learn(self, batch: Hashed) -> None:
        for fold, model in enumerate(self._models):
            if (chosen := batch.folds != fold).any():
                model.partial_fit(batch.features[chosen], batch.labels[chosen], classes=[False, True])

    def _fold(self, group: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{group}".encode()).digest()[:4]) % self.folds


def features_of(question: Closed) -> list[list[str]]:
    """The features of each option of a question, as texts to hash."""
    text = question.text.casefold()
    options = [option.casefold() for option in question.options]
    lengths = [len(option) for option in question.options]
    words_of = [WORD.findall(option) for option in options]
    words = sorted(set(WORD.findall(text)) - {word for row in words_of for word in row})
    found = []
    for place, option in enumerate(options):
        row = [f"option {question.task}={option}", f"place {place} of {len(lengths)}"]
        if len(set(lengths)) > 1:
            row += ["longest"] * (lengths[place] == max(lengths)) + ["shortest"] * (lengths[place] == min(lengths))
        row += [f"word {word} & {option}" for word in words]
        row += [f"word of option {word}" for word in words_of[place]]
        if option in text:
            row.append(f"said in the question by {question.task}")
        found.append(row)
    return found


def closed_questions(records: Iterable[Record]) -> list[Closed]:
    """Every question with options: listed ones, or the answers of a task that has few and asks each often."""
    answers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    kept: list[tuple[str, str, str, tuple[str, ...] | None, str, str]] = []
    for record in records:
        if record.answer is None:
            continue
        if len(answers[record.task]) <= MOST_ANSWERS:
            answers[record.task][record.answer] += 1
        group = record.audio[0] if record.audio else record.id
        choices, answer = record.choices, record.answer
        named = record.meta.get("options")
        if choices and answer in choices and named and len(named) == len(choices):
            # Behind the letters stand names, and a name can give itself away.
            choices, answer = tuple(named), named[choices.index(answer)]
        kept.append((record.id, record.task, record.question, choices, answer, group))
    closed = {
        task: tuple(sorted(counts))
        for task, counts in answers.items()
        if 2 <= len(counts) <= MOST_ANSWERS and sum(counts.values()) >= 10 * len(counts)
    }
    found = []
    for id_, task, text, choices, answer, group in kept:
        options = choices or closed.get(task)
        if options and len(options) > 1 and answer in options:
            found.append(Closed(id_, task, text, options, options.index(answer), group))
    return found


def _right(scores: np.ndarray, answer: int) -> tuple[bool, float]:
    """Whether the best option is the answer (a tie is wrong), and the share of probability that it gets."""
    odds = np.exp(scores - scores.max())
    share = float(odds[answer] / odds.sum())
    return bool((scores[answer] > np.delete(scores, answer)).all()), share


def _longest(options: Sequence[str]) -> int:
    return max(range(len(options)), key=lambda place: (len(options[place]), -place))
