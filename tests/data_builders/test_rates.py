"""Rates, and sets of invented rows: the same rows wherever one starts, in whole shards."""

from itertools import pairwise

import pytest

from data_builders import rates
from data_builders.shards import read_shards
from data_builders.validating import validate
from lalm.errors import DataError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(rates, "ROWS_PER_BLOCK", 200)
    monkeypatch.setattr(rates, "SCENES_PER_BLOCK", 40)


def test_a_block_is_full_and_has_every_task_and_distinct_rows():
    rows = rates.block_rows(3)
    assert len(rows) == len({row.id for row in rows}) == 200
    assert {row.task for row in rows} == set(rates.TASK_SHARES)
    assert rows == rates.block_rows(3)
    assert not {row.id for row in rows} & {row.id for row in rates.block_rows(4)}


def test_rows_are_the_same_from_wherever_one_starts():
    source = rates.InventedRows(600)
    whole = list(source.rows(0, 600))
    assert len({row.id for row in whole}) == 600
    assert list(source.rows(150, 450)) == whole[150:450]


def test_the_truth_that_is_invented_is_that_of_the_plan():
    items, written = rates.ready_scenes(0)
    for item in items:
        events = written[item.id].scene.events
        assert [event.clip for event in events] == [clip.id for clip in item.plan.clips]
        assert all(later.onset > earlier.end for earlier, later in pairwise(events))


def test_a_set_is_written_and_its_growth_is_told(tmp_path):
    growth = rates.build_invented(tmp_path / "set", 600)
    assert [moment.rows for moment in growth] == [200, 400, 600]
    assert all(moment.megabytes > 10 for moment in growth)
    assert sum(1 for _ in read_shards(tmp_path / "set")) == 600
    assert validate(tmp_path / "set", audio=False).problems == []


def test_a_part_of_a_shard_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"rows: 250 is not accepted\. Give a multiple of 200"):
        rates.build_invented(tmp_path / "set", 250)


def test_rates_are_measured():
    found = rates.measure(num_blocks=1, num_scenes=3)
    assert min(vars(found).values()) > 1
    assert found.rows < min(found.asked, found.checked, found.written)
