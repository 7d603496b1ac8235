"""Streams over shards: every row once a pass and process, the same row whenever asked, shares kept, small state."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_sets import write_set

from lalm.data.shards import ShardSet, ShardStream, StreamMixture, open_shards
from lalm.errors import DataError


def streams(shards, world_size, **changes):
    options = {"seed": 3, "shuffle_rows": 7, **changes}
    return [ShardStream(shards, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_each_pass_holds_every_row_once_over_all_processes(tmp_path, form, world_size):
    """Five shards for eight processes too: they are shared within."""
    shards = open_shards(write_set(tmp_path / "set", 41, form=form, rows_per_shard=9))
    assert shards.rows == (9, 9, 9, 9, 5)
    orders = []
    for number in range(2):
        seen = []
        for stream in streams(shards, world_size):
            size = stream.rows_per_pass
            assert size in (41 // world_size, -(-41 // world_size))
            seen += [stream.row(row).id for row in range(number * size, (number + 1) * size)]
        assert sorted(seen, key=lambda name: int(name[1:])) == [f"r{row}" for row in range(41)]
        orders.append(seen)
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    world_size=st.integers(1, 9),
    shuffle_rows=st.integers(1, 40),
    passed=st.integers(0, 3),
)
def test_stretches_cover_the_line_once(rows, world_size, shuffle_rows, passed):
    shards = ShardSet("folder", tuple(map(str, range(len(rows)))), tuple(rows), "")
    if sum(rows) < world_size:
        return
    seen = Counter()
    for stream in streams(shards, world_size, shuffle_rows=shuffle_rows):
        for first in range(stream.start, stream.stop, shuffle_rows):
            for shard, start, stop in stream._stretches(passed, first, min(first + shuffle_rows, stream.stop)):
                seen.update((shard, row) for row in range(start, stop))
    assert seen == Counter((shard, row) for shard, count in enumerate(rows) for row in range(count))


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_row_is_the_same_whenever_it_is_asked_for(tmp_path, form):
    shards = open_shards(write_set(tmp_path / "set", 30, form=form, rows_per_shard=8))
    (whole,) = streams(shards, 1)
    records = [whole.row(number) for number in range(60)]
    for number in (59, 0, 31, 30, 29, 6, 7):
        (fresh,) = streams(shards, 1)
        assert fresh.row(number) == records[number]
    assert whole.ids(3, 50) == [record.id for record in records[3:53]]
    other = streams(shards, 1, seed=4)[0]
    assert [other.row(number).id for number in range(30)] != [record.id for record in records[:30]]


def test_only_one_block_is_in_memory(tmp_path, monkeypatch):
    from lalm.data import shards as module

    shards = open_shards(write_set(tmp_path / "set", 60, rows_per_shard=20))
    (stream,) = streams(shards, 1, shuffle_rows=10)
    read = []
    real = module.read_rows
    monkeypatch.setattr(
        module, "read_rows", lambda path, start, stop: read.append(stop - start) or real(path, start, stop)
    )
    for number in range(60):
        stream.row(number)
        assert len(stream._block) == 10
    assert read == [10] * 6


def test_shares_are_kept_to_within_a_draw_and_resumed_from_counts(tmp_path):
    a, b = (open_shards(write_set(tmp_path / name, count, prefix=name)) for name, count in (("a", 60), ("b", 20)))
    made = {"a": streams(a, 1)[0], "b": streams(b, 1)[0]}
    mixture = StreamMixture(made, {"b": 2.0})
    assert mixture.draws_per_epoch == 100
    drawn = []
    for count in range(1, 301):
        drawn.append(mixture.next())
        assert abs(mixture.drawn["a"] - 0.6 * count) <= 1
    resumed = StreamMixture(made, {"b": 2.0})
    resumed.restore(json.loads(json.dumps({"a": 0, "b": 0})))
    assert [resumed.next() for _ in range(300)] == drawn
    middle = StreamMixture(made, {"b": 2.0})
    middle.restore({name: sum(source == name for source, _ in drawn[:137]) for name in "ab"})
    assert [middle.next() for _ in range(163)] == drawn[137:]
    even = StreamMixture(made, {}, temperature=1e9)
    assert even.shares == pytest.approx({"a": 0.5, "b": 0.5})


def test_refusals(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json: is no manifest of shards .*lalm data export-to-shards"):
        open_shards(tmp_path)
    folder = write_set(tmp_path / "set", 5, rows_per_shard=2)
    shards = open_shards(folder)
    with pytest.raises(DataError, match="has 5 rows for 6 processes"):
        streams(shards, 6)
    (stream,) = streams(shards, 1)
    with pytest.raises(DataError, match=r"the stream was over \['b'\] and is now over \['a'\]"):
        StreamMixture({"a": stream}, {}).restore({"b": 3})
    with pytest.raises(DataError, match=r"no state \{'a': -1\}"):
        StreamMixture({"a": stream}, {}).restore({"a": -1})
    (folder / "shard-00001.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"shard-00001\.parquet: cannot be read"):
        [stream.row(number) for number in range(5)]
    (folder / "shard-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"1 of 3 shards are missing, shard-00001\.parquet"):
        open_shards(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["name"] = "../shard"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="lies outside of the folder"):
        open_shards(folder)


def test_a_shard_with_fewer_rows_than_promised_is_refused(tmp_path):
    folder = write_set(tmp_path / "set", 6, rows_per_shard=3)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][1]["rows"] = 5
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (stream,) = streams(open_shards(folder), 1, shuffle_rows=20)
    with pytest.raises(DataError, match="has fewer rows than its manifest says"):
        stream.row(0)
