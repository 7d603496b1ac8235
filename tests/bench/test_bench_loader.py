"""The dry run of a stream: what it writes is a sharded set, and what it reports is so."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from data_builders.shards import read_shards
from lalm.bench import loader
from lalm.bench.loader import StreamRun, measure_loader, run_stream, write_invented_shards
from lalm.bench.machine import SAMPLED_SECONDS, AllocatedPeak
from lalm.bench.sizes import find_sizes
from lalm.bench.tables import loader_table, stream_lines
from lalm.data.shards import ShardStream
from lalm.errors import RecipeError


class Reports:
    def __init__(self):
        self.results = []

    def wait(self):
        pass

    def done(self, result):
        self.results.append(result)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "ROWS_PER_SHARD", 300)
    monkeypatch.setattr(loader, "ROWS_CHECKED", 5)
    write_invented_shards(tmp_path, 1000)
    return tmp_path


def test_the_invented_set_is_one_that_export_writes(folder):
    records = list(read_shards(folder))
    assert [record.id for record in records] == [f"r{number}" for number in range(1000)]
    assert records[7].turns[0].content == "What is heard in clip 7?"
    assert records[7].audio == ("clips/7.flac",)
    assert len(list(folder.glob("*.parquet"))) == 4


def test_a_stream_is_balanced_apart_and_resumed(folder):
    reports = Reports()
    run_stream(StreamRun(folder, 1000, 7, shuffle_rows=50), reports)
    (row,) = reports.results
    assert (row["rows_least"], row["rows_most"], row["shards"]) == (142, 143, 4)
    assert (row["rows_never_read"], row["rows_read_twice"], row["ranks_resumed"]) == (0, 0, 7)
    results = {"ranks": 7, "held": [], "streamed": [row]}
    assert loader_table(results).row_count == 1
    assert "142 to 143 rows each, 0 rows never read, 0 read twice; 7 of 7 go on exactly" in stream_lines(results)[0]


def test_shares_that_overlap_would_show(folder, monkeypatch):
    first = ShardStream.__init__

    def overlapping(self, shards, **options):
        first(self, shards, **options)
        self.start = max(0, self.start - 10)

    monkeypatch.setattr(ShardStream, "__init__", overlapping)
    reports = Reports()
    run_stream(StreamRun(folder, 1000, 5, shuffle_rows=50), reports)
    assert reports.results[0]["rows_read_twice"] == 40


def test_allocated_memory_is_what_was_held_at_most():
    gc.collect()  # what tests before it have left would be given back while this one measures
    with AllocatedPeak() as memory:
        held = np.ones(2**23)
        time.sleep(5 * SAMPLED_SECONDS)
        del held
    assert 60 * 2**20 < memory.grown_bytes < 100 * 2**20
    assert memory.kept_bytes < 30 * 2**20


def test_fewer_records_than_processes_are_refused():
    with pytest.raises(RecipeError, match="--ranks 64: a stream needs at least a record for each"):
        measure_loader(find_sizes("tiny"), (), (10,), 64)
