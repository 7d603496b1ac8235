"""The journal: nothing lost, nothing doubled, whatever the moment of a kill."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_builders.llm_writer.journal import Journal
from lalm.errors import DataError

KEYS = [f"{number:064x}" for number in range(5)]


def filled(path, fsync="never"):
    with Journal(path, fsync=fsync) as journal:
        for number, key in enumerate(KEYS):
            journal.put("reply", key, {"text": f"naïve {number}\n" * 200}, cost=0.5)
    return path


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_what_was_put_is_found_again(fsync, tmp_path):
    with Journal(filled(tmp_path / "j", fsync), fsync=fsync) as journal:
        assert len(journal) == 5
        assert journal.cost == 2.5
        assert [journal.get("reply", key)["text"] for key in KEYS] == [f"naïve {n}\n" * 200 for n in range(5)]
        assert journal.get("refused", KEYS[0]) is None
        assert journal.get("reply", "f" * 64) is None


def test_a_key_keeps_its_first_value_and_is_paid_once(tmp_path):
    with Journal(filled(tmp_path / "j")) as journal:
        journal.put("reply", KEYS[0], "another", cost=9.0)
        journal.note_lost(KEYS[0], "time-out", cost=0.25)
        assert journal.get("reply", KEYS[0])["text"].startswith("naïve 0")
    with Journal(tmp_path / "j") as journal:
        assert journal.cost == 2.75
        assert len(journal) == 5


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(min_value=0))
def test_a_torn_end_is_cut_off_wherever_the_kill_came(cut, tmp_path):
    whole = filled(tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    torn = whole[: cut % (len(whole) + 1)]
    (tmp_path / "torn").write_bytes(torn)
    lines = torn.count(b"\n")
    with Journal(tmp_path / "torn") as journal:
        assert len(journal) == lines
        for number, key in enumerate(KEYS):
            journal.put("reply", key, {"text": f"naïve {number}\n" * 200}, cost=0.5)
    assert (tmp_path / "torn").read_bytes() == whole


def test_blocks_that_a_power_cut_left_empty_are_cut_off(tmp_path):
    path = filled(tmp_path / "j")
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 512)
    with Journal(path) as journal:
        assert len(journal) == 5
    assert path.read_bytes() == whole


def test_damage_in_the_middle_is_named(tmp_path):
    path = filled(tmp_path / "j")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"key": 1}\n' + lines[2])
    with pytest.raises(DataError, match=r"j:2: this line of the journal is damaged"):
        Journal(path)
    path.write_bytes(lines[0] + lines[2])
    Journal(path).close()  # The lock was given back.


def test_one_writer_at_a_time(tmp_path):
    with Journal(tmp_path / "j"), pytest.raises(DataError, match="another writer is using this journal"):
        Journal(tmp_path / "j")
    Journal(tmp_path / "j").close()


def test_lines_are_what_the_docstring_says(tmp_path):
    entry = json.loads(filled(tmp_path / "j").read_text(encoding="utf-8").splitlines()[1])
    assert set(entry) == {"key", "kind", "value", "cost"}
    assert (entry["key"], entry["kind"], entry["cost"]) == (KEYS[1], "reply", 0.5)
