"""Counts and yardsticks of a file of records."""

from data_builders.stats import blind_accuracy, task_stats
from lalm.data.records import Record, Turn


def record(number, task, question, answer, choices=None):
    turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
    return Record(id=f"{task}-{number}", audio=(f"{number % 3}.wav",), turns=turns, task=task, choices=choices)


def test_majority_chance_and_counts():
    rows = [
        record(number, "presence", "Is it?", answer, ("yes", "no"))
        for number, answer in enumerate(["yes", "yes", "yes", "no"])
    ]
    (row,) = task_stats(rows)
    assert (row.records, row.clips, row.answers, row.majority_answer) == (4, 3, 2, "yes")
    assert (row.majority, row.chance) == (0.75, 0.5)


def test_blind_takes_the_commonest_training_answer_to_the_same_words():
    train = [
        record(0, "t", "Is A there?", "yes"),
        record(1, "t", "Is B there?", "no"),
        record(2, "t", "Is B there?", "no"),
    ]
    test = [
        record(3, "t", "Is A there?", "yes"),
        record(4, "t", "Is B there?", "yes"),
        record(5, "t", "Is C there?", "no"),
    ]
    assert blind_accuracy(train, test) == {"t": 2 / 3}
