"""`lalm data judge` against a stub: both orders asked, faults met, nothing asked twice, a stopped run goes on."""

import json
import re

import pytest
from stub_endpoint import StubEndpoint
from typer.testing import CliRunner

from data_builders.cli import app
from data_builders.filters.judging import CRITERIA
from lalm.data.records import Record, read_records, write_records


def record(number, *, answer="a dog", choices=None, **provenance):
    turns = [{"role": "user", "content": "What is heard?"}, {"role": "assistant", "content": answer}]
    return Record(id=f"r{number}", turns=turns, choices=choices, provenance=provenance, meta={"number": number})


def verdicts(body):
    """Denies what is about a bird, cannot decide about a cat."""
    prompt = body["messages"][-1]["content"]
    if "Answer to check: a cat" in prompt:
        return "I would rather not say."
    return json.dumps(dict.fromkeys(CRITERIA, True) | {"supported": "Answer to check: a bird" not in prompt})


def judge(folder, stub, *more):
    arguments = ["judge", str(folder / "rows.jsonl"), "-o", str(folder / "good.jsonl"), "--model", "stub-judge"]
    return CliRunner().invoke(app, [*arguments, "--endpoint", stub.url, *more])


@pytest.fixture
def rows(tmp_path):
    options = ("a dog", "a gong")
    rows = [record(0), record(1, answer="a bird"), record(2, choices=options), record(3, answer="a cat")]
    write_records(tmp_path / "rows.jsonl", rows)
    return tmp_path


def test_what_the_judge_denies_or_cannot_read_is_rejected_with_the_reason(rows):
    with StubEndpoint(verdicts, lambda number, body: {0: "500", 2: "dropped"}.get(number)) as stub:
        result = judge(rows, stub)
        assert result.exit_code == 0, result.output
        assert sum(stub.answered.values()) == 6  # one, one, both orders, and twice what could not be read
        again = judge(rows, stub)
        assert again.exit_code == 0
        assert sum(stub.answered.values()) == 6
    kept = list(read_records(rows / "good.jsonl"))
    assert {row.id: row.provenance["filters"]["judge"]["orders"] for row in kept} == {"r0": 1, "r2": 2}
    rejects = [json.loads(line) for line in (rows / "good.rejects.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in rejects] == [("r1", "not supported"), ("r3", "judge_error")]
    report = json.loads((rows / "good.funnel.json").read_text())["reports"]["judge"]
    assert report == {"judged": 4, "errors": 1, "agreement": 1.0}


def test_both_orders_are_asked_and_a_schema_is_wanted(rows):
    with StubEndpoint(verdicts) as stub:
        judge(rows, stub)
        options = re.findall(r"Options: (.*)", "\n".join(body["messages"][-1]["content"] for body in stub.bodies))
        assert {"a dog, a gong", "a gong, a dog", "none"} == set(options)
        schema = stub.bodies[0]["response_format"]["json_schema"]["schema"]
        assert set(schema["required"]) == set(CRITERIA)


def test_a_run_that_may_ask_no_more_writes_nothing_and_goes_on_later(rows):
    with StubEndpoint(verdicts) as stub:
        stopped = judge(rows, stub, "--max-requests", "2")
        assert stopped.exit_code == 3
        assert "wait for a verdict" in stopped.output
        assert not (rows / "good.jsonl").exists()
        before = sum(stub.answered.values())
        assert judge(rows, stub).exit_code == 0
        assert (before, sum(stub.answered.values())) == (2, 6)


def test_a_model_does_not_judge_what_it_wrote(rows):
    write_records(rows / "rows.jsonl", [record(7, written_by={"model": "stub-judge"})])
    with StubEndpoint(verdicts) as stub:
        result = judge(rows, stub)
    assert result.exit_code == 1
    assert "record 'r7': was written by stub-judge, which cannot judge it" in result.output
