"""How a stage changes its records: tags, prefixes, worked examples, continued targets."""

from __future__ import annotations

import pytest
from tiny_data import FakeProcessor, make_recipe, make_record, write_clip

from lalm.data.dataset import build_stage_data, stage_records
from lalm.data.examples import Dropped, SourcedRecord, load_held_out, load_stage_records, open_clips
from lalm.data.records import Turn, write_records
from lalm.data.variants import keep_transcripts, with_continuations, with_worked_examples, worded

RATE = 16000


@pytest.fixture
def data(tmp_path):
    """`data(key=value)`: the data section of a recipe."""
    return lambda **changes: make_recipe(tmp_path, data=changes).data


def sourced(name, clips, answer="yes", **more) -> SourcedRecord:
    return SourcedRecord(make_record(name, clips, f"question {name}?", answer, **more), "s", tuple(clips))


def test_tags_stand_before_the_question_and_behind_its_clips(data):
    record = make_record("r", ["a.wav"], "<audio>What?", "yes", task="qa", language="en", answer_type="yes_no")
    assert worded(record, data()) == record
    assert worded(record, data(task_tags="task")).turns[0].content == "<audio>[qa] What?"
    tagged = worded(record, data(task_tags="hierarchical", closed_prefix="Closed-ended question:"))
    assert tagged.turns[0].content == "<audio>[unknown][en][qa] Closed-ended question: What?"
    assert tagged.turns[1] == record.turns[1]


def test_open_questions_get_no_prefix_and_only_the_last_question_a_tag(data):
    record = make_record("r", [], "first", "one")
    turns = (*record.turns, Turn(role="user", content="second"), Turn(role="assistant", content="two"))
    tagged = worded(record.model_copy(update={"turns": turns}), data(task_tags="task", closed_prefix="Closed:"))
    assert [turn.content for turn in tagged.turns] == ["first", "one", "[qa] second", "two"]


def test_worked_examples_are_of_the_task_and_of_other_clips():
    records = [sourced(f"r{n}", [f"{n // 2}.wav"], f"answer {n}", task="ab"[n % 2]) for n in range(12)]
    opened = with_worked_examples(records, 2, seed=1)
    assert list(opened) == list(with_worked_examples(records, 2, seed=1))
    assert list(opened) != list(with_worked_examples(records, 2, seed=2))
    for before, after in zip(records, opened, strict=True):
        assert after.num_worked == 2
        assert len(set(after.clips)) == 3 == len(after.record.audio)
        assert after.clips[-1] == before.clips[0]
        assert [turn.role for turn in after.record.turns] == ["user", "assistant"] * 3
        assert all(turn.content.startswith("<audio>question") for turn in after.record.turns[::2])
        answers = {item.record.answer: item.record.task for item in records}
        assert {answers[turn.content] for turn in after.record.turns[1::2]} == {before.record.task}
        assert after.record.answer == before.record.answer
    assert with_worked_examples(records, 0, seed=1) == records


def test_a_task_with_one_clip_has_no_worked_examples():
    lonely = [sourced("a", ["x.wav"]), sourced("b", ["x.wav"])]
    assert list(with_worked_examples(lonely, 3, seed=0)) == lonely


def test_answers_of_worked_examples_are_read_and_not_supervised(corpus):
    plain, opened = (
        build_stage_data(recipe, 0, FakeProcessor(), open_clips(recipe, RATE))
        for recipe in (make_recipe(corpus, stage={"micro_batch_tokens": 400, "in_context": count}) for count in (0, 2))
    )
    supervised = {example.record.id: example.labels[example.labels != -100].tolist() for example in plain.examples}
    assert len(opened.examples) == 18
    for example in opened.examples:
        assert len(example.audio_spans) == 3
        assert example.labels[example.labels != -100].tolist() == supervised[example.record.id]


def test_continuations_answer_the_clip_in_place_of_the_transcript():
    dropped = Dropped()
    records = [
        sourced("t", ["a.wav"], "good morning", answer_type="transcript"),
        sourced("empty", ["b.wav"], "well", answer_type="transcript"),
        sourced("open", ["c.wav"], "yes"),
        sourced("two", ["a.wav", "b.wav"], "well", answer_type="transcript"),
    ]
    kept = keep_transcripts(records, dropped)
    assert [item.record.id for item in kept] == ["t", "empty"]
    (item,) = with_continuations(kept, {"t": "to you all ", "empty": "  "}, "Continue:", dropped)
    assert [turn.content for turn in item.record.turns] == ["Continue:\n\n<audio>", "to you all"]
    assert item.record.answer_type == "open"
    assert set(dropped.reasons) == {"open", "two", "empty"}
    assert "no continuation" in dropped.reasons["empty"]


def test_stages_filter_by_split_and_length(tmp_path):
    write_clip(tmp_path / "a.wav", 0.5)
    answers = {"train": ["one", "one two", "one two three"], "validation": ["one", "one two three four"]}
    records = [
        make_record(f"{split}{number}", ["a.wav"], "what?", answer, split=split)
        for split, texts in answers.items()
        for number, answer in enumerate(texts)
    ]
    write_records(tmp_path / "data.jsonl", records)

    def chosen(**stage) -> list[str]:
        sources = {"all": {"records": "data.jsonl", "splits": ["train", "validation"]}}
        recipe = make_recipe(tmp_path, data={"sources": sources}, stage=stage)
        return [item.record.id for item in load_stage_records(recipe, 0)[0]]

    assert len(chosen()) == 5
    assert chosen(splits=["validation"]) == ["validation0", "validation1"]
    assert chosen(min_answer_words=2, max_answer_words=3) == ["train1", "train2"]
    recipe = make_recipe(tmp_path, stage={"evaluate_every_steps": 1, "evaluate_records": 1})
    assert len(load_held_out(recipe, 0)) == 1
    assert load_held_out(recipe, 0)[0].record.split == "validation"
    assert stage_records(recipe, 0)[0][0].record.id == "train0"
