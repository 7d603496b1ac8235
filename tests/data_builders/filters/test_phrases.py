"""Refusals at the head, leaks anywhere, every language's file."""

import pytest

from data_builders.filters.phrases_filter import KINDS, Phrases, load_phrases, phrase_languages
from lalm.errors import DataError


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't hear it.",
        "I’m sorry.",
        "  Unfortunately, I cannot tell.",
        "Lo siento, no se oye.",
        "Извините, я не слышу.",
        "抱歉,我听不出来。",
        "Es tut mir leid.",
    ],
)
def test_refusals_in_several_languages(record, answer):
    verdict = Phrases().judge(record(answer=answer))
    assert (verdict.kept, verdict.reason) == (False, "refuses to answer")
    assert Phrases().judge(record(answer=answer, task="unanswerable")).kept


@pytest.mark.parametrize(
    "answer",
    ["The dog is loud enough; I cannot sleep, she says.", "A man says 'I am sorry'.", "It is possible.", "Désolation."],
)
def test_the_same_words_later_in_an_answer_stay(record, answer):
    assert Phrases().judge(record(answer=answer)).kept


@pytest.mark.parametrize(
    ("answer", "reason", "note"),
    [
        ("Based on the caption, a dog.", "shows what it was written from", "based on the caption"),
        ("A dog. [Explanation] It barks.", "holds a marker of the prompt", "[explanation]"),
        ("Selon les métadonnées, un chien.", "shows what it was written from", "selon les métadonnées"),
        ("根据元数据,是狗。", "shows what it was written from", "根据元数据"),
    ],
)
def test_leaks(record, answer, reason, note):
    verdict = Phrases().judge(record(answer=answer))
    assert (verdict.kept, verdict.reason, verdict.note) == (False, reason, note)


def test_a_leak_in_a_question_counts_and_a_marker_there_does_not(record):
    assert not Phrases().judge(record(question="Which sound, according to the metadata?")).kept
    assert Phrases().judge(record(question="Question: what is heard?")).kept


def test_whole_words_only(record):
    assert Phrases(["en"]).judge(record(answer="It was an aid to a language modeller.")).kept


def test_words_that_were_said_are_no_refusal(record):
    said = "I'm sorry, that is not a valid extension."
    assert Phrases().judge(record(answer=said, task="translation")).kept
    assert Phrases().judge(record(answer=said, answer_type="transcript")).kept
    assert not Phrases().judge(record(answer=said)).kept


def test_one_language_can_be_chosen_and_an_unknown_one_is_named(record):
    assert Phrases(["en"]).judge(record(answer="Lo siento.")).kept
    with pytest.raises(DataError, match=r"'xx' has no file\. Accepted: de, en"):
        Phrases(["xx"])


@pytest.mark.parametrize("language", phrase_languages())
def test_every_file_loads(language):
    table = load_phrases(language)
    assert set(table) <= set(KINDS)
    assert table["refusal"]
    assert all(isinstance(phrase, str) and phrase.strip() for phrases in table.values() for phrase in phrases)
