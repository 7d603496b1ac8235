"""Group-wise splits: nothing on two sides, nothing moves when data is added, the ledger rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented_rows import make_record

from data_builders.filters.grouping import GroupSplit, load_ledger, save_ledger
from lalm.errors import DataError

HALVES = {"train": 0.5, "test": 0.5}
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8), st.integers(0, 20)), min_size=1, max_size=40)


def rows_of(keys, start=0):
    return [
        make_record(start + n, audio=(f"{clip}.wav",), meta={"speaker": speaker, "session": f"s{session}"})
        for n, (speaker, session, clip) in enumerate(keys)
    ]


def split(rows, **options):
    splitter = GroupSplit(shares=HALVES, **options)
    splitter.prepare(rows)
    return splitter, {row.id: splitter.side_of(row) for row in rows if splitter.judge(row).kept}


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_no_key_stands_on_two_sides_and_old_rows_never_move(old_keys, new_keys):
    old = rows_of(old_keys)
    splitter, sides = split(old)
    assert len(sides) == len(old)
    grown = [*rows_of(new_keys, 100), *old]
    second, later = split(grown, ledger=splitter.ledger())
    assert {id_: later[id_] for id_ in sides} == sides
    seen = {}
    for row in grown:
        if row.id in later:
            for key in second.keys_of(row):
                assert seen.setdefault(key, later[row.id]) == later[row.id]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 500)), min_size=2, max_size=60))
def test_a_speakers_clips_stay_without_a_ledger(pairs):
    owner = {}
    rows = []
    for n, (speaker, clip) in enumerate(pairs):
        speaker = owner.setdefault(clip, speaker)
        rows.append(make_record(n, audio=(f"{clip}.wav",), meta={"speaker": speaker}))
    _, all_sides = split(rows)
    _, part = split(rows[: len(rows) // 2])
    assert {id_: all_sides[id_] for id_ in part} == part


def test_shares_are_met_and_order_does_not_matter():
    rows = [make_record(n) for n in range(2000)]
    _, sides = split(rows)
    assert 0.45 < list(sides.values()).count("test") / 2000 < 0.55
    assert split(rows[::-1])[1] == sides
    assert split(rows, seed=1)[1] != sides


def test_declared_groups_hold_together():
    rows = [make_record(n, provenance={"groups": [f"g{n // 50}"]}) for n in range(500)]
    _, sides = split(rows)
    assert all(len({sides[f"r{n}"] for n in range(50 * g, 50 * g + 50)}) == 1 for g in range(10))
    assert len(set(sides.values())) == 2


def test_a_row_that_joins_two_sides_is_rejected():
    ledger = {"clip:a.wav": "train", "clip:b.wav": "test"}
    rows = [
        make_record(0, audio=("a.wav",)),
        make_record(1, audio=("a.wav", "b.wav")),
        make_record(2, audio=("b.wav",)),
    ]
    splitter, sides = split(rows, ledger=ledger)
    assert sides == {"r0": "train", "r2": "test"}
    assert splitter.judge(rows[1]).note == ["test", "train"]


def test_ledger_is_read_back(tmp_path):
    save_ledger(tmp_path / "l.json", {"clip:a": "test"}, 3)
    assert load_ledger(tmp_path / "l.json") == {"clip:a": "test"}
    (tmp_path / "l.json").write_text('{"sides": {"clip:a": "left"}}')
    with pytest.raises(DataError, match=r"l\.json: is no ledger"):
        load_ledger(tmp_path / "l.json")


def test_shares_must_sum_to_one():
    with pytest.raises(DataError, match="must be of train, validation, test and sum to 1"):
        GroupSplit(shares={"train": 0.5})
