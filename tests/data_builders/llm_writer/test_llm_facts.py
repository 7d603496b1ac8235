"""Facts from a file of facts and from records, with every broken row named."""

from __future__ import annotations

import json

import pytest
from invented_facts import invented, write_facts

from data_builders.llm_writer.facts import Facts, KnownQuestion, TimedEvent, facts_of_record, read_facts
from lalm.data.records import Record, Turn, write_records
from lalm.errors import DataError


def record(number: int, question: str, answer: str, **more) -> Record:
    turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
    return Record(id=f"r{number}", audio=("a.wav",), turns=turns, **more)


def test_a_file_of_facts_is_read_in_order(tmp_path):
    facts = read_facts(write_facts(tmp_path / "facts.jsonl", 3))
    assert facts == [invented(n) for n in range(3)]


def test_lines_are_all_that_is_known():
    clip = invented(0, transcript="hello", instruments=("oboe",), attributes={"tempo": "92"}, tags=("dog", "bell"))
    assert clip.lines() == [
        "description: A dog sounds before a bell, take 0.",
        "sounds: dog, bell",
        "event: dog, from 0.5 s to 1.5 s",
        "event: bell, from 2.0 s to 4.0 s",
        "words spoken: hello",
        "instruments: oboe",
        "tempo: 92",
    ]
    assert clip.known() == {"facts": clip.lines(), "seconds": 6.0}


def test_what_a_known_question_only_names_is_not_known_to_sound():
    asked = [
        {"question": "Is there a siren?", "answer": "No.", "choices": ("yes", "no"), "answer_type": "yes_no"},
        {"question": "Is there a train?", "answer": "Yes.", "choices": ("yes", "no"), "answer_type": "yes_no"},
        {"question": "Which is it: an owl or a wren?", "answer": "wren", "choices": ("owl", "wren")},
        {"question": "How many guns are heard?", "answer": "none"},
        {"question": "How often does the horn sound?", "answer": "twice"},
    ]
    clip = invented(0, questions=[KnownQuestion(**known) for known in asked])
    said = clip.known()["facts"][len(invented(0).lines()) :]
    assert said == ["Is there a train? Yes.", "wren", "How often does the horn sound? twice"]
    assert "Is there a siren? No." in clip.lines()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": [{"label": "dog", "onset": 2, "offset": 1}]}, "'dog' ends at 1.0 s before it begins at 2.0 s"),
        ({"audio": []}, "audio: Tuple should have at least 1 item"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"id": "clip0000"}, "the id 'clip0000' stands twice"),
    ],
)
def test_broken_rows_are_named(change, message, tmp_path):
    rows = [invented(n).model_dump(mode="json") for n in range(2)]
    rows[1] |= change
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        read_facts(path)


def test_a_duration_gives_the_offset():
    assert TimedEvent.model_validate({"label": "dog", "onset": 0.5, "duration": 1.25}).offset == 1.75


def test_records_about_one_clip_are_merged(tmp_path):
    events = [{"label": "dog", "onset": 1.0, "offset": 2.0}]
    rows = [
        record(0, "What is heard?", "A dog barks.", task="caption", meta={"seconds": 3.0, "events": events}),
        record(1, "Say it.", "sit down", task="transcription", answer_type="transcript"),
        record(2, "Is there a cat?", "no", answer_type="yes_no", choices=("yes", "no"), meta={"label": "dog"}),
        record(3, "Which language is it?", "I cannot tell.", task="unanswerable"),
        record(4, "In French?", "assis", task="translation"),
    ]
    write_records(tmp_path / "rows.jsonl", rows)
    [clip] = read_facts(tmp_path / "rows.jsonl")
    assert (clip.id, clip.audio, clip.seconds) == ("r0", ("a.wav",), 3.0)
    assert (clip.captions, clip.transcript, clip.tags) == (("A dog barks.",), "sit down", ("dog",))
    assert clip.events == (TimedEvent(label="dog", onset=1.0, offset=2.0),)
    [question] = clip.questions
    assert (question.question, question.answer, question.choices) == ("Is there a cat?", "no", ("yes", "no"))


def test_meta_that_is_no_fact_names_the_record(tmp_path):
    write_records(tmp_path / "rows.jsonl", [record(0, "What is it?", "A dog.", meta={"seconds": -1})])
    with pytest.raises(DataError, match=r"id 'r0'\): meta.seconds: Input should be greater than 0"):
        read_facts(tmp_path / "rows.jsonl")


def test_digest_follows_every_fact():
    clip = invented(0)
    assert clip.digest() == invented(0).digest()
    for change in ({"captions": ()}, {"seconds": 6.5}, {"attributes": {"a": "b"}}, {"source": "other"}):
        assert Facts(**(dict(clip) | change)).digest() != clip.digest()


def test_facts_of_a_record_without_a_clip_are_left_out(tmp_path):
    spoken = Record(id="t", turns=(Turn(role="user", content="Hi"), Turn(role="assistant", content="Ho")))
    write_records(tmp_path / "rows.jsonl", [spoken, record(1, "What is it?", "A dog.")])
    assert [facts.id for facts in read_facts(tmp_path / "rows.jsonl")] == ["r1"]
    assert facts_of_record(record(1, "What is it?", "A dog.")).questions[0].answer == "A dog."
