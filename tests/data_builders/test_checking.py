"""What a whole set goes through: what is dropped, marked and written."""

import json

import pytest
from invented_corpora import tiny_recipe

from data_builders.card import funnel_lines
from data_builders.checking import check_set, filters_of
from data_builders.filters.base import Funnel
from lalm.data.records import Record, Turn, read_records
from lalm.errors import DataError


def row(number, split, answer):
    turns = (Turn(role="user", content="Which?"), Turn(role="assistant", content=answer))
    return Record(
        id=f"r{number}", audio=(f"{number}.wav",), turns=turns, split=split, choices=("up", "down", "sorry, but no")
    )


def test_rejects_go_and_blind_answers_are_marked(tmp_path):
    rows = [row(n, "train", "up" if n else "sorry, but no") for n in range(60)]
    rows += [row(100 + n, "test", "up") for n in range(10)]
    funnel, counts = check_set(lambda: rows, filters_of(tiny_recipe(), tmp_path, {}), tmp_path)
    assert counts == {"train": 59, "validation": 0, "test": 10}
    kept = {split: list(read_records(tmp_path / f"{split}.jsonl")) for split in counts}
    assert {split: len(found) for split, found in kept.items()} == counts
    assert {record.split for record in kept["test"]} == {"test"}
    reject = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert (reject["id"], reject["reason"]) == ("r0", "refuses to answer")
    assert Funnel.load(tmp_path / "funnel.json").to_json() == funnel.to_json()
    marked = [record for record in kept["train"] if record.provenance["filters"]["blind"] != "passed"]
    assert len(marked) > 30
    card = "\n".join(funnel_lines(funnel))
    assert "| phrases | 70 | 69 | refuses to answer: 1 |" in card
    assert "| qa | 70 | 0.99 | 0.33 | 0.99 |" in card


def test_without_rejects_there_is_no_file_of_them(tmp_path):
    check_set(lambda: [row(1, "train", "up")], filters_of(tiny_recipe(), tmp_path, {}), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "funnel.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]


def test_the_chain_is_that_of_the_recipe(tmp_path):
    recipe = tiny_recipe(filters=[{"name": "balance"}, {"name": "blind"}], dedupe={})
    assert [filter_.name for filter_ in filters_of(recipe, tmp_path, {})] == ["balance", "blind", "duplicates"]
    with pytest.raises(DataError, match=r"gone\.jsonl: no such registry"):
        filters_of(tiny_recipe(decontaminate={"against": ["gone.jsonl"]}), tmp_path, {})


def test_equal_digests_are_one_sound(tmp_path):
    filters = filters_of(tiny_recipe(filters=[], dedupe={}), tmp_path, {"1.wav": "x", "2.wav": "x", "3.wav": "y"})
    funnel, counts = check_set(lambda: [row(n, "train", "up") for n in (1, 2, 3)], filters, tmp_path)
    assert counts["train"] == 2
    assert funnel.steps[0].reasons == {"the same sound and text": 1}
