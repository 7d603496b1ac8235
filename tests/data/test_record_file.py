"""The index of a file of records: the same records and problems as reading it, made once, made anew when it changes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from tiny_data import make_record

from lalm.data import record_file
from lalm.data.record_file import open_record_file
from lalm.data.records import scan_records, write_records
from lalm.errors import DataError

RECORDS = [
    make_record("a", ["x.wav"], "what?", "a dog", task="one"),
    make_record("b", [], "say yes", "yes", task="two", split="test", custom={"deep": [1, 2]}),
    make_record("ä ö", ["x.wav", "y.wav"], "<audio> or <audio>?", "the second one", task="one"),
]
BAD = ['{"id": "bad", "turns": []}', "{no json", "[1, 2]"]


def write_mixed(path):
    """Good and bad lines, blank ones, a byte order mark, and a line end of two bytes."""
    good = [json.dumps(record.to_json(), ensure_ascii=False) for record in RECORDS]
    text = "\n".join([good[0], BAD[0], "", good[1] + "\r", BAD[1], "   ", BAD[2], good[2]])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return path


@pytest.mark.parametrize("kind", ["mixed.jsonl", "rows.parquet", "rows.jsonl"])
def test_records_and_problems_are_those_of_a_scan(tmp_path, kind):
    path = tmp_path / kind
    if kind == "mixed.jsonl":
        write_mixed(path)
    else:
        write_records(path, RECORDS)
    file = open_record_file(path)
    good, bad = scan_records(path)
    assert list(file) == good == RECORDS
    assert [file[-1], *file[:2]] == [good[-1], *good[:2]]
    assert file.problems == bad
    assert len(bad) == (3 if kind == "mixed.jsonl" else 0)
    with pytest.raises(IndexError, match="item 3 of 3"):
        file[3]


def test_a_csv_is_read_like_the_others(tmp_path):
    (tmp_path / "rows.csv").write_text("file,question,answer\na.wav,what?,dog\n,,\nb.wav,who?,Ann\n")
    file = open_record_file(tmp_path / "rows.csv")
    assert [record.answer for record in file] == ["dog", "Ann"]
    assert "rows.csv:3" in file.problems[0]


def test_the_file_is_checked_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = write_mixed(tmp_path / "data.jsonl")
    first = open_record_file(path)
    checked = []
    real = record_file.parse_record
    monkeypatch.setattr(record_file, "record_rows", lambda path: checked.append(path) or iter(()))
    assert open_record_file(path).problems == first.problems
    assert not checked
    os.utime(path, ns=(1, 1))
    assert len(open_record_file(path)) == 0
    assert len(checked) == 1
    assert real is record_file.parse_record


def test_a_file_that_changes_while_it_is_read_from_is_refused(tmp_path):
    path = write_mixed(tmp_path / "data.jsonl")
    file = open_record_file(path)
    with path.open("a") as lines:
        lines.write("\n")
    with pytest.raises(DataError, match=r"data\.jsonl: was changed while it is in use"):
        file[0]
    replaced = tmp_path / "other.jsonl"
    write_records(replaced, RECORDS)
    file = open_record_file(path)
    os.replace(replaced, path)  # The open file is still the old one.
    assert file[0] == RECORDS[0]


def test_a_file_that_changes_while_it_is_indexed_is_refused(tmp_path, monkeypatch):
    path = write_mixed(tmp_path / "data.jsonl")
    real = record_file.parse_record
    monkeypatch.setattr(record_file, "parse_record", lambda *given: os.utime(path, ns=(1, 1)) or real(*given))
    with pytest.raises(DataError, match=r"data\.jsonl: was changed while it was read"):
        open_record_file(path)


def test_select_by_split_and_task(tmp_path):
    file = open_record_file(write_mixed(tmp_path / "data.jsonl"))
    assert file.select(["train"], None).tolist() == [0, 2]
    assert file.select(["train", "test"], ["two"]).tolist() == [1]
    assert file.select(["validation"], None).tolist() == []
    assert file.select(["train"], ["nothing"]).tolist() == []
    assert file.rows["words"].tolist() == [2, 1, 3]
    assert len(np.unique(file.rows["id"])) == 3


def test_refusals(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        open_record_file(tmp_path / "none.jsonl")
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(DataError, match=r"data\.txt: cannot read '\.txt' files"):
        open_record_file(tmp_path / "data.txt")


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "data.jsonl").write_text("\n")
    assert list(open_record_file(tmp_path / "data.jsonl")) == []
