"""Every scorer against verdicts and sums worked out by hand."""

import pytest

from lalm.data.records import Record
from lalm.errors import DataError
from lalm.evaluation.scorers import Choice, YesNo, aggregate, headline, score, scorer_name


def record(answer, answer_type="open", choices=None, task="qa", **extra):
    turns = [{"role": "user", "content": "Q?"}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return Record(id="r", turns=turns, answer_type=answer_type, choices=choices, task=task, **extra)


@pytest.mark.parametrize(
    ("truth", "reply", "correct"),
    [
        ("A dog.", "dog", True),
        ("A dog.", "the dog!", True),
        ("A dog.", "A dog barks", False),
        ("7", "seven", True),
        ("A", "an", False),
    ],
)
def test_exact(truth, reply, correct):
    assert score(record(truth), reply).correct is correct


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ("Yes, it is.", "yes"),
        ("No.", "no"),
        ("There is, yes", "yes"),
        ("Yes and no", "yes"),
        ("It is yes or no", None),
        ("a dog", None),
        ("Да", "yes"),
        ("", None),
    ],
)
def test_yes_no_parse(reply, parsed):
    assert YesNo.parse(reply) == parsed


def test_yes_no_unparsed_is_wrong():
    verdict = score(record("Yes", "yes_no"), "maybe")
    assert (verdict.correct, verdict.answered, verdict.parsed) == (False, True, False)


@pytest.mark.parametrize(
    ("reply", "correct", "parsed"),
    [
        ("3", True, True),
        ("There are three.", True, True),
        ("three, that is 3", True, True),
        ("4", False, True),
        ("3 or 4", False, False),
        ("many", False, False),
    ],
)
def test_number(reply, correct, parsed):
    verdict = score(record("3", "number"), reply)
    assert (verdict.correct, verdict.parsed) == (correct, parsed)


@pytest.mark.parametrize(
    ("reply", "picked"),
    [
        ("dog", "a dog"),
        ("A", "a dog"),
        ("(b) whatever", "raining"),
        ("C. not raining", "not raining"),
        ("It is not raining.", "not raining"),
        ("It is raining", "raining"),
        ("a dog or raining", None),
        ("The answer is B", "raining"),
        ("a cat", None),
        ("Z", None),
    ],
)
def test_choice_parse(reply, picked):
    assert Choice.parse(reply, ("a dog", "raining", "not raining")) == picked


def test_options_that_are_letters_are_read_as_text():
    assert Choice.parse("B", ("C", "B", "A")) == "B"
    assert Choice.parse("A", ("C", "B", "A")) == "A"


def test_choice_options_that_are_digits_meet_number_words():
    assert Choice.parse("seven", tuple("0123456789")) == "7"


def test_empty_reply_is_unanswered_and_wrong():
    verdict = score(record("A dog."), " ... ")
    assert (verdict.correct, verdict.answered, verdict.parsed) == (False, False, False)


def test_no_truth_no_verdict():
    assert score(record(None), "dog").correct is None


def test_declining_is_right_where_the_truth_declines():
    unanswerable = record("I cannot tell from this clip.", "choice")
    assert score(unanswerable, "It is not possible to say.").correct is True
    assert score(unanswerable, "A dog.").correct is False
    figures = aggregate([record("A dog.")], ["I cannot tell from this clip."])["qa"]
    assert (figures["accuracy"], figures["declined"]) == (0.0, 1)


def test_transcript_sums_errors_before_it_divides():
    pytest.importorskip("jiwer")
    records = [record("hello big world", "transcript"), record("Goodbye.", "transcript")]
    figures = aggregate(records, ["hello world", "good bye"])["qa"]
    # 1 deletion of 3 words, then 1 substitution + 1 insertion of 1 word: 3 errors of 4 words.
    assert figures["wer"] == pytest.approx(3 / 4)
    # "big " is 4 deletions of 15 characters; "good bye" is 1 insertion of 7: 5 of 22.
    assert figures["cer"] == pytest.approx(5 / 22)
    assert figures["exact"] == 0.0
    assert (figures["metric"], headline(figures)) == ("wer", figures["wer"])


def test_unanswered_transcript_loses_all_its_words():
    pytest.importorskip("jiwer")
    figures = aggregate([record("one two", "transcript"), record("Ёж", "transcript")], ["", "еж"])["qa"]
    assert figures["wer"] == pytest.approx(2 / 3)
    assert (figures["exact"], figures["unanswered"], figures["unparsed"]) == (0.5, 1, 0)


def test_translation_has_exact_and_corpus_figures():
    pytest.importorskip("sacrebleu")
    records = [record("the house is very small", task="translation")] * 2
    figures = aggregate(records, ["The house is very small.", "the house is very small"])["translation"]
    assert figures["accuracy"] == 1.0
    assert figures["bleu"] == pytest.approx(100)
    assert figures["chrf"] == pytest.approx(100)


def test_aggregate_keeps_tasks_apart_and_counts():
    records = [record("Yes", "yes_no", task="a"), record("No", "yes_no", task="a"), record("x", task="b"), record(None)]
    figures = aggregate(records, ["yes", "perhaps", "", "?"])
    assert list(figures) == ["a", "b"]
    assert (figures["a"]["n"], figures["a"]["accuracy"], figures["a"]["unparsed"]) == (2, 0.5, 1)
    assert (figures["b"]["accuracy"], figures["b"]["unanswered"], figures["b"]["unparsed"]) == (0.0, 1, 0)


def test_counts_must_agree():
    with pytest.raises(ValueError, match="argument 2"):
        aggregate([record("x")], [])


def test_a_record_may_name_its_scorer():
    assert scorer_name(record("x", meta={"scorer": "number"})) == "number"
    with pytest.raises(DataError, match=r"no scorer 'judge'. Accepted: exact"):
        scorer_name(record("x", meta={"scorer": "judge"}))
