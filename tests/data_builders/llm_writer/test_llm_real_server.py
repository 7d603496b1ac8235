"""llama.cpp's own server and a packaged model of 135 million parameters: rows through faults and kills.

`write_through_faults` with more facts, faults and kills wrote the rows that the README counts.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import FaultyProxy
from forked import start_data_command
from invented_facts import write_facts
from running import paid_keys, write_arguments, write_command
from stub_endpoint import FAULTS, so_many_faults

from data_builders.filters.grounding import Grounding
from data_builders.filters.phrases_filter import Phrases
from data_builders.llm_writer.endpoint import Reply
from data_builders.llm_writer.facts import read_facts
from data_builders.llm_writer.llama_server import gguf_of, llama_server
from data_builders.llm_writer.recipes.one_sound import OneQuestion
from data_builders.llm_writer.structured import read_reply
from lalm.data.records import Record, read_records
from lalm.errors import DataError, ModelError

Serve = Callable[[], AbstractContextManager[str]]
MODEL = "package:smollm2-135m-instruct"
ROOT = Path(__file__).resolve().parents[3]
REPLY_SECONDS = 20.0
"""Longer than a reply of the model takes where others compute too."""
needs_server = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="needs xllamacpp: pip install 'lalm[llamacpp]'"
)


@dataclass
class Survived:
    """What a run through faults and kills leaves, and what the proxy saw of it."""

    rows: list[Record]
    rejects: list[dict[str, Any]]
    faults: dict[str, int]
    attempts: int
    replies: int
    """Whole replies of the real server."""
    asked_again: int = 0
    """Replies that were under way at a kill, and had to be had once more."""
    journaled: int = 0
    said: list[str] = field(default_factory=list)
    """What the last run printed."""


def write_through_faults(
    folder: Path,
    facts: Path,
    serve: Serve,
    *,
    faults: int,
    share: float,
    kills: int,
    replies_a_kill: int,
    seed: int = 0,
) -> Survived:
    """Writes rows of `facts` by recipe one_sound into `folder`, killing the writer again and again; checks the journal.

    Args:
        serve: starts the real server, anew for each writer, and stops it.
        faults: injected altogether, into a `share` of the requests, every kind in turn.
        replies_a_kill: a writer lives until the journal has about this many replies more.
    """
    rng = random.Random(seed)
    out, journal = folder / "rows.jsonl", folder / "rows.journal.jsonl"
    options = ["-r", "one_sound", "--model", "smollm2", "--concurrency", "4", "--max-tokens", "110"]
    options += ["--request-seconds", str(REPLY_SECONDS), "--attempts", "20"]
    plan = so_many_faults(faults, share=share, seed=seed)
    with FaultyProxy(plan, hang_seconds=REPLY_SECONDS + 5) as proxy:
        command = write_command(facts, out, proxy.url, *options)
        for _ in range(kills):
            paid, before = paid_keys(journal), len(proxy.keys)
            wanted = len(paid) + rng.randint(1, 2 * replies_a_kill)
            with serve() as proxy.upstream:
                process = start_data_command(*write_arguments(facts, out, proxy.url, *options))
                while len(paid_keys(journal)) < wanted and process.is_alive():
                    time.sleep(0.05)
                time.sleep(rng.uniform(0, 0.5))
                assert process.is_alive(), "the run ended before it was killed: give it more facts"
                process.kill()
                process.join()
            assert not paid & set(proxy.keys[before:]), "a reply in the journal was paid for again"
        paid, before = paid_keys(journal), len(proxy.keys)
        with serve() as proxy.upstream:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not paid & set(proxy.keys[before:])
        assert not proxy.refusals
        written, asked = out.read_bytes(), len(proxy.keys)
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (again.returncode, out.read_bytes(), len(proxy.keys)) == (0, written, asked)
    return Survived(
        rows=list(read_records(out)),
        rejects=[json.loads(line) for line in (folder / "rows.rejects.jsonl").read_text().splitlines()],
        faults=dict(proxy.faults),
        attempts=asked,
        replies=sum(proxy.answered.values()),
        asked_again=sum(count - 1 for count in proxy.answered.values()),
        journaled=len(paid_keys(journal)),
        said=done.stdout.splitlines(),
    )


def check_rows(survived: Survived, facts: Path, journal: Path) -> None:
    """Every clip has its row or its reasons, once; every row stands in a journaled reply and passes the filters."""
    replies = {}
    for entry in map(json.loads, journal.read_text().splitlines()):
        if entry["kind"] == "reply":
            assert entry["key"] not in replies, "a reply stands twice in the journal"
            replies[entry["key"]] = entry["value"]
    clips = {clip.id for clip in read_facts(facts)}
    with_rows = [row.meta["clip"] for row in survived.rows]
    assert len(with_rows) == len(set(with_rows))
    assert set(with_rows) | {reject["id"] for reject in survived.rejects} == clips
    judges = (Phrases(), Grounding(strict=True))
    for row in survived.rows:
        asked = row.provenance["written_by"]["asked"]
        assert {entry["request"] for entry in asked} <= set(replies)
        last = replies[asked[-1]["request"]]
        reply = read_reply(Reply(**last), OneQuestion).value
        assert reply is not None
        assert (row.question, row.answer) == (reply.question, reply.answer)
        assert row.meta["evidence"][0] in {event["label"] for event in row.meta["events"]}
        assert all(judge.judge(row).kept for judge in judges)


@contextmanager
def served(*before: str) -> Iterator[str]:
    """The base URL of `lalm data serve-llm` in a process of its own; `before` stands in front of its command."""
    program = "from data_builders.cli import main; main()"
    command = [sys.executable, "-c", program, "serve-llm", MODEL, "--port", str(_free_port()), "--threads", "1"]
    process = subprocess.Popen([*before, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/v1) answers 4 requests at once", line)
        assert found, line
        yield found[1]
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


@needs_server
@pytest.mark.slow(seconds=100)
@pytest.mark.real("models")
def test_a_real_model_writes_through_faults_and_kills(tmp_path):
    facts = write_facts(tmp_path / "facts.jsonl", 14)
    survived = write_through_faults(tmp_path, facts, served, faults=12, share=0.5, kills=2, replies_a_kill=4)
    check_rows(survived, facts, tmp_path / "rows.journal.jsonl")
    assert len(survived.rows) >= 10
    assert set(survived.faults) == set(FAULTS)
    assert survived.asked_again <= 2 * 4
    assert len({row.question for row in survived.rows}) > 7


@pytest.mark.real("models")
def test_the_file_of_a_packaged_model_is_found(tmp_path):
    assert gguf_of(MODEL).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert gguf_of(str(gguf_of(MODEL))) == gguf_of(MODEL)


def test_a_base_without_a_gguf_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"base '.*' holds 0 GGUF files"):
        gguf_of(str(tmp_path))
    with pytest.raises(ModelError, match=r"base 'smollm2': no such file or folder"):
        gguf_of("smollm2")


@needs_server
def test_a_file_that_is_no_model_and_a_taken_port_are_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"not a model at all")
    with pytest.raises(DataError, match="does not start with"), llama_server(str(tmp_path), port=_free_port()):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = pytest.raises(DataError, match=f"--port {port}: something listens there")
        with refused, llama_server(str(tmp_path), port=port):
            pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
