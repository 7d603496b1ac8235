"""The run of filters: order, counts, notes, passes, the sidecar."""

import json

import pytest

from data_builders.filters.base import KEPT, Funnel, Rejects, Verdict, rejected, run_filters
from lalm.errors import DataError


class Odd:
    name = "odd"

    def judge(self, record):
        return rejected("is odd") if int(record.id[1:]) % 2 else KEPT


class Small:
    name = "small"

    def __init__(self):
        self.seen = []
        self.prepared = 0

    def prepare(self, records):
        self.prepared = sum(1 for _ in records)

    def judge(self, record):
        self.seen.append(record.id)
        return Verdict(True, note=0.5) if int(record.id[1:]) < 6 else rejected("is large", 6)

    def report(self):
        return {"prepared": self.prepared}


def test_records_pass_in_order_and_every_reject_is_counted_once(record, run):
    small = Small()
    kept, rejects, funnel = run([record(number) for number in range(10)], Odd(), small)
    assert [item.id for item in kept] == ["r0", "r2", "r4"]
    assert small.seen == ["r0", "r2", "r4", "r6", "r8"]
    assert [(step.name, step.entered, step.kept) for step in funnel.steps] == [("odd", 10, 5), ("small", 5, 3)]
    assert funnel.steps[1].reasons == {"is large": 2}
    assert len(kept) + len(rejects) == 10
    assert funnel.reports == {"small": {"prepared": 10}}


def test_notes_of_earlier_runs_stay(record, run):
    once, _, _ = run([record(0, provenance={"groups": ["g"]})], Odd())
    twice, _, _ = run(once, Small())
    assert twice[0].provenance == {"groups": ["g"], "filters": {"odd": "passed", "small": 0.5}}


def test_the_run_holds_one_record_at_a_time(record):
    given = []

    def source():
        for number in range(100):
            given.append(number)
            yield record(number)

    stream = run_filters(source, [Odd()], Funnel())
    next(stream)
    next(stream)
    assert given == [0, 1, 2]


def test_a_name_twice_is_refused(run):
    with pytest.raises(DataError, match=r"\['odd', 'odd'\] holds a name twice"):
        run([], Odd(), Odd())


def test_funnel_is_read_back(tmp_path, record, run):
    _, _, funnel = run([record(number) for number in range(9)], Odd(), Small())
    funnel.save(tmp_path / "funnel.json")
    assert Funnel.load(tmp_path / "funnel.json").to_json() == funnel.to_json()
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(DataError, match=r"bad\.json: cannot be read as a funnel"):
        Funnel.load(tmp_path / "bad.json")


def test_rejects_go_to_the_sidecar_whole_or_not_at_all(tmp_path, record):
    path = tmp_path / "rejects.jsonl"
    with Rejects(path) as rejects:
        rejects.add("odd", record(1), rejected("is odd", 0.3))
        assert not path.exists()
    row = json.loads(path.read_text())
    assert (row["id"], row["filter"], row["reason"], row["note"]) == ("r1", "odd", "is odd", 0.3)
    assert row["record"] == record(1).to_json()
    path.unlink()
    with pytest.raises(RuntimeError), Rejects(path) as rejects:
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
