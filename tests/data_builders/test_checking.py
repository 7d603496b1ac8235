"""The filters of every built set: what they drop, mark and write."""

import json

from data_builders.asking import Asked
from data_builders.card import funnel_lines
from data_builders.checking import check_asked
from data_builders.filters.base import Funnel
from lalm.data.records import Record, Turn


def row(number, split, answer):
    turns = (Turn(role="user", content="Which?"), Turn(role="assistant", content=answer))
    return Record(
        id=f"r{number}", audio=(f"{number}.wav",), turns=turns, split=split, choices=("up", "down", "sorry, but no")
    )


def test_rejects_go_and_blind_answers_are_marked(tmp_path):
    asked = {
        "train": Asked(tuple(row(n, "train", "up" if n else "sorry, but no") for n in range(60)), {}),
        "test": Asked(tuple(row(100 + n, "test", "up") for n in range(10)), {}),
    }
    kept, funnel = check_asked(asked, tmp_path)
    assert [len(kept[split].records) for split in ("train", "test")] == [59, 10]
    assert {record.split for record in kept["test"].records} == {"test"}
    reject = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert (reject["id"], reject["reason"]) == ("r0", "refuses to answer")
    assert Funnel.load(tmp_path / "funnel.json").to_json() == funnel.to_json()
    marked = [record for record in kept["train"].records if record.provenance["filters"]["blind"] != "passed"]
    assert len(marked) > 30
    card = "\n".join(funnel_lines(funnel))
    assert "| phrases | 70 | 69 | refuses to answer: 1 |" in card
    assert "| qa | 70 | 0.99 | 0.33 | 0.99 |" in card


def test_without_rejects_there_is_no_file_of_them(tmp_path):
    check_asked({"train": Asked((row(1, "train", "up"),), {})}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["funnel.json"]
