"""The blind baseline: leaks are found and dropped down to chance; a fair set is left alone."""

import random

import pytest

from data_builders.filters.blind import BagOfWords, Blind, closed_questions
from lalm.errors import DataError

OPTIONS = ("dog", "gong", "rain", "train")


def fair(record, count=240, **fields):
    rng = random.Random(3)
    rows = []
    for number in range(count):
        options = list(OPTIONS)
        rng.shuffle(options)
        rows.append(
            record(number, rng.choice(("What is heard?", "Which sound is it?")), rng.choice(options), choices=options,
                   task="name", **fields)
        )  # fmt: skip
    return rows


def given_away(record, count=240):
    """Every other question says which answer is right: by a word that is no option."""
    hints = {"dog": "furry", "gong": "metal", "rain": "wet", "train": "rails"}
    rows = fair(record, count)
    return [
        row if number % 2 else record(number, f"What {hints[row.answer]} thing is it?", row.answer, choices=row.choices,
                                      task="name")
        for number, row in enumerate(rows)
    ]  # fmt: skip


def test_a_fair_set_is_left_alone(record, run):
    kept, rejects, funnel = run(fair(record), Blind())
    assert len(kept) == 240
    assert not rejects
    found = funnel.reports["blind"]["name"]
    assert abs(found["accuracy"] - 0.25) < 0.06
    assert found["chance"] == 0.25


def test_questions_that_give_the_answer_away_are_dropped_to_chance(record, run):
    rows = given_away(record)
    kept, rejects, funnel = run(rows, Blind())
    found = funnel.reports["blind"]["name"]
    assert found["accuracy"] > 0.5
    assert found["accuracy_after"] <= 0.25
    assert found["dropped"] == len(rejects)
    hinted = {row.id for row in rows if "thing" in row.question}
    assert sum(id_ in hinted for _, id_, _, _ in rejects) / len(rejects) > 0.9
    assert {reason for _, _, reason, _ in rejects} == {"is answered without audio"}
    assert len(kept) + len(rejects) == len(rows)


def test_marking_keeps_them(record, run):
    kept, rejects, funnel = run(given_away(record), Blind(action="mark"))
    marked = [row for row in kept if "answered_without_audio" in str(row.provenance)]
    assert not rejects
    assert len(marked) == funnel.reports["blind"]["name"]["dropped"] > 50


def test_place_and_length_are_found(record, run):
    rows = [record(n, "Which?", "the long one", choices=["the long one", f"a{n}"], task="length") for n in range(100)]
    _, _, funnel = run(rows, Blind())
    found = funnel.reports["blind"]["length"]
    assert found["accuracy"] > 0.95
    assert found["longest_option"] == 1.0
    assert found["majority"] == 1.0


def test_no_clip_helps_to_answer_itself(record, run):
    """Every clip has its own word and answer, asked six times: only a leak between folds could learn it."""
    rows = []
    rng = random.Random(1)
    for clip in range(60):
        answer = rng.choice(OPTIONS)
        rows += [
            record(6 * clip + n, f"What of zq{clip}x?", answer, choices=OPTIONS, task="name", audio=(f"{clip}.wav",))
            for n in range(6)
        ]
    _, _, funnel = run(rows, Blind())
    assert funnel.reports["blind"]["name"]["accuracy"] < 0.45


def test_the_same_rows_give_the_same_rejects(record, run):
    rows = given_away(record)
    assert run(rows, Blind())[1] == run(rows, Blind())[1]


def test_closed_tasks_without_choices_and_open_ones(record):
    rows = [record(n, answer=("yes", "no")[n % 2], task="presence", answer_type="yes_no") for n in range(40)]
    rows += [record(100 + n, answer=f"words {n}", task="describe") for n in range(40)]
    found = closed_questions(rows)
    assert {question.task for question in found} == {"presence"}
    assert found[0].options == ("no", "yes")
    filter_ = Blind()
    filter_.prepare(rows)
    assert filter_.judge(rows[-1]).note == "open"


def test_a_scorer_can_be_given(record, run):
    class First:
        def fit(self, questions):
            self.count = len(list(questions()))

        def score(self, question):
            return [-float(place) for place in range(len(question.options))]

    rows = [record(n, answer="dog", choices=OPTIONS) for n in range(50)]
    _, rejects, funnel = run(rows, Blind(First()))
    assert len(rejects) == 50
    assert funnel.reports["blind"]["qa"]["accuracy"] == 1.0


def test_ties_are_not_right(record, run):
    class Flat:
        def fit(self, questions):
            pass

        def score(self, question):
            return [0.0] * len(question.options)

    _, _, funnel = run([record(n, answer="dog", choices=OPTIONS) for n in range(50)], Blind(Flat()))
    assert funnel.reports["blind"]["qa"]["right"] == 0


def test_an_unknown_action_is_named():
    with pytest.raises(DataError, match=r"action 'rewrite' is not known\. Accepted: drop, mark"):
        Blind(action="rewrite")


def test_bag_of_words_without_a_question(record):
    scorer = BagOfWords()
    scorer.fit(list)
    assert scorer.score(closed_questions([record(0, answer="dog", choices=OPTIONS)])[0]) == [0.0] * 4


def test_behind_letters_the_names_are_looked_at(record):
    letters = ("A", "B")
    rows = [
        record(n, f"Which? {n}", letters[n % 2], choices=letters, meta={"options": ["bell", "dog"][:: 1 - 2 * (n % 2)]})
        for n in range(4)
    ]
    found = closed_questions(rows)
    assert [question.options[question.answer] for question in found] == ["bell"] * 4
    plain = closed_questions([record(0, "Which?", "A", choices=letters, meta={"options": ["one"]})])
    assert plain[0].options == letters


def test_many_questions_score_as_each_alone(record, monkeypatch):
    questions = closed_questions(given_away(record)[:40])
    scorer = BagOfWords(passes=2)
    scorer.fit(lambda: questions)
    many = list(scorer.score_many(questions))
    assert many == [scorer.score(question) for question in questions]
    assert len({tuple(scores) for scores in many}) > 3
    monkeypatch.setattr("data_builders.filters.blind.MOST_HELD", 0)
    again = BagOfWords(passes=2)
    again.fit(lambda: questions)
    assert list(again.score_many(questions)) == many
