"""Builds that are killed at random moments: the set that comes in the end is the one of a build that nobody killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import start
from invented_corpora import differing_files, invented_clips, tiny_recipe

from data_builders.clips import seeded
from data_builders.jobs import Processes
from data_builders.pipeline import build_from_clips
from data_builders.shards import read_shards

KILLS = 20
CHANGES = {"questions": {"block_clips": 40}, "output": {"form": "parquet", "rows_per_shard": 60}, "dedupe": {}}
TWO_WORKERS = "import sys, test_kills; test_kills.build(test_kills.Path(sys.argv[1]), 2)"

pytestmark = pytest.mark.slow(seconds=60)


def build(out, workers=1):
    build_from_clips(out, invented_clips(), tiny_recipe(**CHANGES), runner=Processes(workers), report=lambda line: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A set that nobody disturbed, and the seconds that it took in a fresh process."""
    out = tmp_path_factory.mktemp("whole") / "set"
    started = time.monotonic()
    process = start(build, out)
    process.join()
    assert process.exitcode == 0
    return out, time.monotonic() - started


def test_twenty_kills_lose_no_row_and_double_none(whole, tmp_path):
    reference, seconds = whole
    ids = [record.id for record in read_shards(reference)]
    assert len(ids) == len(set(ids)) > 300
    rng = seeded("kills")
    kills = finished = 0
    while kills < KILLS or not finished:
        out = tmp_path / f"set-{finished}"
        process = start(build, out)
        process.join(rng.uniform(0, seconds * 0.9) if kills < KILLS else None)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
            assert differing_files(reference, out) == []
            assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
            finished += 1


def test_workers_end_with_a_killed_parent_and_the_next_run_finishes(whole, tmp_path):
    out = tmp_path / "set"
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", TWO_WORKERS, str(out)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            start_new_session=True,
        )
        while process.poll() is None and not parts(tmp_path):
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert ends(process.pid)
    build(out)
    assert differing_files(whole[0], out) == []


def parts(folder):
    return list(folder.glob(".set.building/work/*/*.jsonl"))


def ends(group, seconds=30):
    """Whether every process of a session ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
