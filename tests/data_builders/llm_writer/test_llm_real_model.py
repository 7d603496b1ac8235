"""A real small language model behind a real server, with a proxy in between that breaks what it passes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from invented_facts import invented
from running import run_writer
from stub_endpoint import FAULTS, StubEndpoint, so_many_faults

from data_builders.filters.grounding import Grounding
from data_builders.filters.phrases_filter import Phrases
from lalm.data.records import read_records

MODEL = "package:smollm2-135m-instruct"
CLIPS = int(os.environ.get("LALM_WRITER_CLIPS", "8"))
"""How many clips are asked about; 8 take about a minute on one core, and 200 rows want a few hundred."""
ROOT = Path(__file__).resolve().parents[3]


class FaultyProxy(StubEndpoint):
    """Passes requests on to a server, and fails as told."""

    def __init__(self, upstream: str, **options: Any):
        super().__init__(lambda body: "", **options)
        self._upstream = upstream

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=None) as client:
            response = await client.post(f"{self._upstream}/chat/completions", json=body)
        assert response.status_code == 200, response.text
        completion: dict[str, Any] = response.json()
        return completion


@pytest.fixture
def server(own_cache):
    """The base URL of a model server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, str(Path(__file__).with_name("model_server.py")), MODEL, str(port)]
    process = subprocess.Popen(program, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the model server ended"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.real("models")
def test_a_real_model_writes_rows_through_faults(server, tmp_path):
    facts = [invented(number) for number in range(CLIPS)]
    kinds = tuple(kind for kind in FAULTS if kind != "time-out")
    faults = max(3, CLIPS // 4)
    with FaultyProxy(server, plan=so_many_faults(faults, share=0.4, kinds=kinds)) as proxy:
        proxy_url, options = proxy.url, {"concurrency": 2, "request_seconds": 3600.0}
        job = {"pairs": 1, "sampling": sampling()}
        written = run_writer(tmp_path, facts, endpoint(proxy_url), job=job, **options)
    replies = sum(proxy.answered.values())
    print(f"{written.rows} rows of {written.clips} clips, {replies} replies, {sum(proxy.faults.values())} faults")
    print(dict(Counter(written.rejected).most_common()))
    rows = list(read_records(tmp_path / "rows.jsonl"))
    assert len({row.id for row in rows}) == len(rows) == written.rows
    assert written.unfinished == 0
    assert written.rows + sum(written.rejected.values()) >= CLIPS
    assert written.rows > 0
    for row in rows[:5]:
        print(row.question, "->", row.answer)
    for row in rows:
        assert Phrases().judge(row).kept
        assert Grounding(strict=True).judge(row).kept


def endpoint(url: str):
    from data_builders.llm_writer.openai_http import OpenAiServer

    return OpenAiServer(url, MODEL, connections=2)


def sampling():
    from data_builders.llm_writer.endpoint import Sampling

    return Sampling(max_tokens=120, temperature=0.4)
