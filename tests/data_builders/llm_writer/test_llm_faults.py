"""The writer against a server that fails: nothing lost, nothing twice, the same rows whatever the concurrency."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

import pytest
from forked import start_data_command
from invented_facts import invented, write_facts, written_pairs
from running import paid_keys, run_writer, write_arguments, write_command
from stub_endpoint import FAULTS, StubEndpoint, so_many_faults

from data_builders.llm_writer.budget import Prices
from data_builders.llm_writer.limits import Breaker
from lalm.data.records import read_records

HANG_SECONDS = 2.0
"""Longer than a good reply takes on a busy machine, and short enough to wait for it."""
ROOT = Path(__file__).resolve().parents[3]


def told(path: Path) -> list[tuple[str, list[str]]]:
    """Ids and turns: what must not depend on faults. (Provenance counts the asks that it took.)"""
    return [(record.id, [turn.content for turn in record.turns]) for record in read_records(path)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> list[tuple[str, list[str]]]:
    """The rows of 40 clips without a fault."""
    folder = tmp_path_factory.mktemp("clean")
    with StubEndpoint(written_pairs) as stub:
        written = run_writer(folder, [invented(n) for n in range(40)], stub.url)
    assert (written.rows, written.unfinished, written.requests) == (160, 0, 40)
    assert set(stub.answered.values()) == {1}
    return told(folder / "rows.jsonl")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_is_met(fault, clean, tmp_path):
    with StubEndpoint(written_pairs, so_many_faults(6, share=0.5, kinds=(fault,))) as stub:
        written = run_writer(tmp_path, [invented(n) for n in range(40)], stub.url, request_seconds=HANG_SECONDS)
    assert stub.faults[fault] == 6
    assert told(tmp_path / "rows.jsonl") == clean
    assert written.unfinished == 0
    if fault == "time-out":
        assert written.faults["time-out"] >= 6  # More where the machine is slow.
    elif fault in FAULTS[:7]:
        assert written.faults["dropped" if fault == "truncated" else fault] == 6
    asked_twice = 6 if fault in ("cut content", "prose") else 0
    assert len(set(stub.keys)) == 40 + asked_twice


@pytest.mark.parametrize("concurrency", [1, 3, 32])
def test_rows_are_the_same_whatever_the_concurrency(concurrency, clean, tmp_path):
    with StubEndpoint(written_pairs, delay_seconds=0.001) as stub:
        run_writer(tmp_path, [invented(n) for n in range(40)], stub.url, concurrency=concurrency)
    assert told(tmp_path / "rows.jsonl") == clean
    assert stub.most_in_flight <= concurrency


def test_equal_bytes_from_any_concurrency(tmp_path):
    for concurrency in (1, 2, 8):
        with StubEndpoint(written_pairs) as stub:
            run_writer(
                tmp_path,
                [invented(n) for n in range(12)],
                stub.url,
                concurrency=concurrency,
                out=f"{concurrency}.jsonl",
                journal=f"{concurrency}.journal",
            )
    one, two, eight = ((tmp_path / f"{n}.jsonl").read_bytes() for n in (1, 2, 8))
    assert one == two == eight


def test_a_second_run_asks_nothing(tmp_path, clean):
    facts = [invented(n) for n in range(40)]
    with StubEndpoint(written_pairs) as stub:
        run_writer(tmp_path, facts, stub.url)
        first = (tmp_path / "rows.jsonl").read_bytes()
        (tmp_path / "rows.jsonl").unlink()
        written = run_writer(tmp_path, facts, stub.url)
    assert len(stub.bodies) == 40
    assert (written.requests, written.from_journal) == (0, 40)
    assert (tmp_path / "rows.jsonl").read_bytes() == first


def test_an_endpoint_that_is_down_ends_the_run_and_loses_nothing(tmp_path, clean):
    facts = [invented(n) for n in range(40)]

    def dies(number, body):
        return "500" if number >= 15 else None

    with StubEndpoint(written_pairs, dies) as stub:
        breaker = Breaker(faults=10, cool_down=0.001, openings=2)
        written = run_writer(tmp_path, facts, stub.url, concurrency=4, breaker=breaker)
    assert written.rows == 4 * (40 - written.unfinished) == 4 * 15
    assert "the endpoint is down" in written.waits_for
    assert "500: " in written.waits_for
    assert len(stub.bodies) <= 15 + 10 + 4 + 3  # the faults in a row, those under way then, and the probes
    with StubEndpoint(written_pairs) as stub:
        written = run_writer(tmp_path, facts, stub.url)
    assert told(tmp_path / "rows.jsonl") == clean
    assert len(stub.bodies) == 25


def test_attempts_end_and_the_clip_waits(tmp_path):
    with StubEndpoint(written_pairs, lambda number, body: "500") as stub:
        said = []
        written = run_writer(tmp_path, [invented(0)], stub.url, attempts=3, report=said.append)
    assert len(stub.bodies) == 3
    assert len(said) == 1  # of the first alone
    assert said[0].startswith("An attempt failed: 500: ")
    assert said[0].endswith(". Up to 3 are made for each request.")
    assert written.unfinished == 1
    assert written.waits_for.startswith("3 attempts failed, the last with 500: ")


def test_nobody_sends_while_the_server_asks_to_wait(tmp_path):
    arrivals = []

    def plan(number, body):
        arrivals.append(time.monotonic())
        return "429" if number == 0 else None

    with StubEndpoint(written_pairs, plan, retry_after="0.3") as stub:
        written = run_writer(tmp_path, [invented(n) for n in range(6)], stub.url, concurrency=1)
    assert written.rows == 24
    assert arrivals[1] - arrivals[0] >= 0.3


def test_a_server_that_asks_for_too_long_a_wait_is_left(tmp_path):
    with StubEndpoint(written_pairs, lambda number, body: "429", retry_after="86400") as stub:
        written = run_writer(tmp_path, [invented(n) for n in range(6)], stub.url, concurrency=2)
    assert written.unfinished == 6
    assert "asks to wait 86400 s" in written.waits_for
    assert len(stub.bodies) <= 2


@pytest.mark.parametrize("ceiling", [0, 1, 7, 39])
def test_max_requests_is_met_exactly(ceiling, tmp_path):
    with StubEndpoint(written_pairs) as stub:
        written = run_writer(tmp_path, [invented(n) for n in range(40)], stub.url, max_requests=ceiling)
    assert len(stub.bodies) == written.requests == ceiling
    assert written.unfinished == 40 - ceiling
    assert written.waits_for == f"--max-requests {ceiling} is reached"


def test_max_cost_is_never_passed_and_earlier_runs_count(tmp_path):
    prices = Prices(per_million_in=1000, per_million_out=2000)  # A stub's reply costs 0.1 + 0.1.
    facts = [invented(n) for n in range(40)]
    most = max(prices.most(request) for request in _requests(tmp_path, facts))
    ceiling = most + 2.0
    with StubEndpoint(written_pairs, so_many_faults(3, kinds=("429", "500"))) as stub:
        written = run_writer(tmp_path, facts, stub.url, max_cost=ceiling, prices=prices)
        replies = sum(stub.answered.values())
        # It stops at the first reply after which the dearest next attempt might not fit, and not before.
        assert written.cost == pytest.approx(0.2 * replies)
        assert ceiling - most < written.cost + 0.2 <= ceiling
        again = run_writer(tmp_path, facts, stub.url, max_cost=ceiling, prices=prices)
        assert again.cost == written.cost
        assert sum(stub.answered.values()) == replies


def test_an_attempt_that_may_have_been_billed_counts(tmp_path):
    prices = Prices(per_million_in=1000, per_million_out=2000)
    with StubEndpoint(written_pairs, so_many_faults(1, share=1, kinds=("truncated",))) as stub:
        written = run_writer(tmp_path, [invented(0)], stub.url, prices=prices)
    assert written.rows == 4
    [request] = _requests(tmp_path, [invented(0)])
    assert written.cost == pytest.approx(prices.most(request) + 0.2)
    lost = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [entry["kind"] for entry in lost] == ["lost", "reply"]


def _requests(tmp_path, facts):
    from data_builders.llm_writer.batch import Collector

    collector = Collector("stub")
    run_writer(tmp_path, facts, collector, out="dry.jsonl", journal="dry.journal")
    return list(collector.requests.values())


def test_a_schema_is_asked_for_once_where_the_server_has_none(tmp_path, clean):
    with StubEndpoint(written_pairs, knows_schemas=False) as stub:
        run_writer(tmp_path, [invented(n) for n in range(40)], stub.url, concurrency=1)
    assert told(tmp_path / "rows.jsonl") == clean
    assert ["response_format" in body for body in stub.bodies] == [True] + [False] * 40


def test_a_server_without_schemas_is_named_to_the_user(tmp_path):
    facts = write_facts(tmp_path / "facts.jsonl", 2)
    with StubEndpoint(written_pairs, knows_schemas=False) as stub:
        command = write_command(facts, tmp_path / "rows.jsonl", stub.url, "--model", "stub")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(list(read_records(tmp_path / "rows.jsonl")))) == (0, 8), done.stderr
    assert "the endpoint takes no JSON schema, so the prompt alone asked for JSON: " in done.stderr
    assert "response_format is not supported" in done.stderr


def test_the_slots_are_kept_full(tmp_path):
    with StubEndpoint(written_pairs, delay_seconds=0.05) as stub:
        written = run_writer(tmp_path, [invented(n) for n in range(160)], stub.url, concurrency=8)
    assert stub.most_in_flight == 8
    assert written.busy_share is not None
    assert 0.5 < written.busy_share <= 1
    print(f"busy: {written.busy_share:.3f}")


@pytest.mark.slow(seconds=30)
def test_a_thousand_faults_lose_nothing_and_double_nothing(tmp_path):
    facts = [invented(n) for n in range(800)]
    with StubEndpoint(written_pairs) as stub:
        run_writer(tmp_path, facts, stub.url, out="clean.jsonl", journal="clean.journal", concurrency=16)
    with StubEndpoint(written_pairs, so_many_faults(1000, share=0.7), delay_seconds=0.01) as stub:
        written = run_writer(tmp_path, facts, stub.url, concurrency=16, request_seconds=HANG_SECONDS)
    assert sum(stub.faults.values()) == 1000
    assert set(stub.faults) == set(FAULTS)
    assert (written.rows, written.unfinished, sum(written.rejected.values())) == (4 * len(facts), 0, 0)
    assert told(tmp_path / "rows.jsonl") == told(tmp_path / "clean.jsonl")
    assert sum(written.faults.values()) >= sum(stub.faults[kind] for kind in FAULTS[:7])
    print(f"busy through 1,000 faults: {written.busy_share:.3f}; {written.requests} attempts")


@pytest.mark.slow(seconds=30)
def test_twenty_kills_lose_nothing_and_pay_nothing_twice(tmp_path):
    facts = write_facts(tmp_path / "facts.jsonl", 600)
    rng = random.Random(0)
    journal = tmp_path / "rows.journal.jsonl"

    options = "--model", "stub", "--concurrency", "4"
    with StubEndpoint(written_pairs, delay_seconds=0.01) as stub:
        for _ in range(20):
            paid, before = paid_keys(journal), len(stub.keys)
            process = start_data_command(*write_arguments(facts, tmp_path / "rows.jsonl", stub.url, *options))
            wanted = before + rng.randint(1, 30)
            while len(stub.keys) < wanted and process.is_alive():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
            assert process.is_alive(), "the run ended before it was killed: give it more clips"
            process.kill()
            process.join()
            assert not paid & set(stub.keys[before:]), "a reply in the journal was paid for again"
        paid, before = paid_keys(journal), len(stub.keys)
        command = write_command(facts, tmp_path / "rows.jsonl", stub.url, *options)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not paid & set(stub.keys[before:])
    ids = [record.id for record in read_records(tmp_path / "rows.jsonl")]
    assert len(ids) == len(set(ids)) == 4 * 600
    assert max(stub.answered.values()) <= 21
    assert sum(stub.answered.values()) <= 600 + 20 * 4  # Only what was at the server at a kill is asked again.
