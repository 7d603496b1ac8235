"""Hand-computed forms."""

import pytest

from lalm.evaluation.normalise import exact_form, is_abstention, numbers_in, transcript_form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("A dog.", "dog"),
        ("  The   DOG!! ", "dog"),
        ("A", "a"),
        ("an", "an"),
        ("Twenty-one dogs", "21 dogs"),
        ("one two", "1 2"),
        ("two hundred and five", "205"),
        ("three thousand, forty", "3040"),
        ("sixteen", "16"),
        ("Don’t", "dont"),
        ("Español.", "español"),
        ("ＦＵＬＬ width", "full width"),
        ("Русский язык!", "русский язык"),
        ("...", ""),
    ],
)
def test_exact_form(text, form):
    assert exact_form(text) == form


def test_number_words_may_stay():
    assert exact_form("Seven dogs", number_words=False) == "seven dogs"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Ёлка — зелёная.", "елка зеленая"),
        ("L'heure, où?", "lheure où"),
        ("¿Dónde está el niño?", "dónde está el niño"),
        ("Perché no?", "perché no"),
        ("é", "é"),
        ("The five well-known dogs", "the five well known dogs"),
    ],
)
def test_transcript_form_of_five_languages(text, form):
    assert transcript_form(text) == form


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("There are 3 dogs.", [3]),
        ("three", [3]),
        ("none", [0]),
        ("1,200 or twenty-one", [1200, 21]),
        ("3-5", [3, 5]),
        ("-2.5 degrees", [-2.5]),
        ("a dog", []),
        ("1,2", [1, 2]),
    ],
)
def test_numbers_in(text, numbers):
    assert numbers_in(text) == numbers


@pytest.mark.parametrize(
    ("text", "declines"),
    [
        ("I cannot tell from this clip.", True),
        ("That can't be known from the recording.", True),
        ("It is not possible to say.", True),
        ("The clip does not say.", True),
        ("A dog that cannot be seen.", False),
        ("There is not a dog.", False),
        ("Not enough people knew it", False),
        ("No.", False),
        ("", False),
    ],
)
def test_is_abstention_looks_at_the_head(text, declines):
    assert is_abstention(text) is declines
