"""What an answer may name: events, labels, captions and their synonyms; not what is only in other records."""

import pytest

from data_builders.filters.grounding import Grounding, load_synonyms

DOG = {"events": [{"label": "dog", "onset": 0.2, "duration": 1.0}], "seconds": 5.0}
OTHERS = [{"labels": ["theremin", "gong"]}, {"events": [{"label": "kick drum"}]}]


@pytest.fixture
def judge(record):
    """A verdict on an answer, given metadata, in a set that also has a theremin, a gong and a kick drum."""

    def call(answer, meta, **fields):
        filter_ = Grounding(strict=fields.pop("strict", False))
        mine = record(1, answer=answer, meta=meta, **fields)
        filter_.prepare([mine, *(record(2 + number, meta=meta) for number, meta in enumerate(OTHERS))])
        return filter_.judge(mine)

    return call


@pytest.mark.parametrize(
    "answer",
    ["A dog.", "Dogs.", "A dog barks; barking is heard.", "There is no theremin.", "It is not a gong, but a dog.",
     "A furry animal at 4.9 seconds."],
)  # fmt: skip
def test_supported_answers_stay(judge, answer):
    assert judge(answer, DOG).kept


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ("A dog and a theremin.", "theremin"),
        ("No dog, a theremin.", "theremin"),
        ("Kick drums.", "kick drum"),
        ("A cat meows.", "cat"),
        ("There is no rain but a siren.", "siren"),
    ],
)
def test_an_invented_sound_is_named(judge, answer, note):
    verdict = judge(answer, DOG)
    assert (verdict.kept, verdict.reason, verdict.note) == (False, "names a sound that the metadata does not", note)


def test_captions_and_transcripts_support(judge):
    meta = {"captions": ["A man hits a gong while rain falls."], "transcript": "turn the theremin on"}
    assert judge("A gong, rainfall and a theremin.", meta).kept
    assert judge("A gong and a dog.", meta).note == "dog"


def test_part_of_a_label_supports(judge):
    assert judge("A drum; a kick drum.", {"labels": ["bass drum"]}).kept


def test_a_time_after_the_end(judge):
    verdict = judge("The dog barks at 7.5 s.", DOG)
    assert (verdict.reason, verdict.note) == ("names a time after the end of the clip", "7.5 s of 5 s")


def test_without_metadata(judge):
    assert judge("A gong.", {}).note == "no metadata"
    assert judge("A gong.", {}, strict=True).reason == "has no metadata to check against"


@pytest.mark.parametrize("fields", [{"task": "unanswerable"}, {"answer_type": "transcript"}])
def test_what_is_no_description_is_not_judged(judge, fields):
    assert judge("A theremin.", DOG, **fields).note == "not judged"


def test_every_turn_is_judged(record):
    filter_ = Grounding()
    turns = [
        {"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "And?"}, {"role": "assistant", "content": "A dog."},
    ]  # fmt: skip
    assert filter_.judge(record(meta=DOG, turns=turns)).note == "cat"


def test_shipped_synonyms_are_texts():
    assert all(isinstance(name, str) for label, names in load_synonyms().items() for name in (label, *names))
