"""Invented records have what the stages of a recipe ask for."""

from __future__ import annotations

import pytest

from lalm.audio.io import probe_audio
from lalm.data.examples import load_stage_records
from lalm.data.invented import write_invented
from lalm.data.records import read_records
from lalm.errors import DataError
from lalm.recipe.load import load_recipe


def invented(name, tmp_path, *overrides):
    recipe = load_recipe(name, [f"data.folder={tmp_path}", *overrides], tiny=True)
    write_invented(recipe)
    return recipe


@pytest.mark.parametrize("name", ["salmonn_7b", "blsp", "ltu", "qwen_audio", "tiny"])
def test_every_stage_has_records(name, tmp_path):
    recipe = invented(name, tmp_path)
    for index, stage in enumerate(recipe.stages):
        records, dropped = load_stage_records(recipe, index)
        assert len(records) >= 2, stage.name
        assert not dropped.reasons
        assert all(item.record.split == "train" for item in records)


def test_a_stage_of_long_answers_finds_long_ones(tmp_path):
    recipe = invented("salmonn_7b", tmp_path, "stages.activate.min_answer_words=31")
    records, _ = load_stage_records(recipe, 2)
    assert {len(item.record.answer.split()) for item in records} == {33}


def test_transcripts_and_text_alone(tmp_path):
    invented("blsp", tmp_path)
    assert {record.answer_type for record in read_records(tmp_path / "asr.jsonl")} == {"transcript"}
    assert {record.audio for record in read_records(tmp_path / "alpaca.jsonl")} == {()}
    assert {record.split for record in read_records(tmp_path / "asr.jsonl")} == {"train", "validation", "test"}
    assert probe_audio(tmp_path / "clips/1.wav").seconds == pytest.approx(1.3)


def test_the_same_is_written_again(tmp_path):
    invented("pengi", tmp_path / "a")
    invented("pengi", tmp_path / "b")
    for name in ("train.jsonl", "clips/0.wav"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data.sources.train: records are invented for .*, not for mine\.csv"):
        invented("tiny", tmp_path, "data.sources.train.records=mine.csv")
