"""Shards: the same bytes from any number of workers, finished after a stop, checked by the manifest."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_builders.row_sources import STRIDE, JsonlRows, MadeRows, ParquetRows, open_rows
from data_builders.shards import MANIFEST, NOTES, read_manifest, read_shards, write_shards
from data_builders.validating import validate
from lalm.audio.io import save_audio
from lalm.data.records import Record, Turn, write_records
from lalm.errors import DataError


def made(number):
    turns = (
        Turn(role="user", content="What is heard?"),
        Turn(role="assistant", content=f"Sound {number * 7919 % 97}."),
    )
    choices = ("a", f"Sound {number * 7919 % 97}.") if number % 3 == 0 else None
    return Record(
        id=f"r{number}", audio=(f"clips/{number % 4}.wav",), turns=turns, choices=choices, meta={"b": number, "a": "ü"}
    )


def source(count=2500):
    return MadeRows("made", count, made)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        save_audio(tmp_path / "set/clips" / f"{number}.wav", rng.normal(0, 0.1, 800).astype(np.float32), 16000)
    return tmp_path / "set"


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_rows_come_back_in_order(tmp_path, clips, form):
    manifest = write_shards(source(250), tmp_path / "out", form=form, rows_per_shard=100, audio_root=clips)
    assert [shard["rows"] for shard in manifest["shards"]] == [100, 100, 50]
    read = list(read_shards(tmp_path / "out"))
    assert [record.id for record in read] == [f"r{number}" for number in range(250)]
    if form == "parquet":
        assert read == [made(number) for number in range(250)]
    else:
        assert read[7].audio == ("000000007.0.wav",)
        assert read[7].provenance == {"files": ["clips/3.wav"]}
    assert validate(tmp_path / "out").problems == []


def test_the_source_of_a_file_starts_anywhere(tmp_path):
    rows = [made(number) for number in range(2 * STRIDE + 5)]
    write_records(tmp_path / "a.jsonl", rows)
    write_records(tmp_path / "a.parquet", rows)
    for opened in (open_rows(tmp_path / "a.jsonl"), open_rows(tmp_path / "a.parquet")):
        assert opened.count() == len(rows)
        for start, stop in ((0, 3), (STRIDE - 1, STRIDE + 2), (2 * STRIDE, 2 * STRIDE + 99), (9999, 10000)):
            assert list(opened.rows(start, stop)) == rows[start:stop]
    assert isinstance(open_rows(tmp_path / "a.jsonl"), JsonlRows)
    assert isinstance(open_rows(tmp_path / "a.parquet"), ParquetRows)


def test_a_broken_row_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n" + json.dumps(made(0).to_json()) + "\nnot json\n")
    with pytest.raises(DataError, match=r"a\.jsonl: row 2: is no JSON"):
        write_shards(open_rows(tmp_path / "a.jsonl"), tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        open_rows(tmp_path / "b.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_one_two_and_eight_workers_write_the_same_bytes(tmp_path, clips, form):
    found = []
    for workers in (1, 2, 8):
        out = tmp_path / str(workers)
        write_shards(source(1000), out, form=form, rows_per_shard=90, workers=workers, audio_root=clips)
        found.append(digests(out))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 13


def test_a_stopped_run_is_finished_and_not_begun_again(tmp_path):
    class Stopping(MadeRows):
        def rows(self, start, stop):
            for number in range(start, stop):
                if number == 950:
                    raise KeyboardInterrupt
                yield self.make(number)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_shards(Stopping("made", 2500, made), out, rows_per_shard=300)
    assert sorted(path.name for path in out.iterdir()) == [
        NOTES, "shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet",
    ]  # fmt: skip
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    (out / "shard-00001.parquet").write_bytes(b"damaged")
    write_shards(source(), out, rows_per_shard=300)
    whole = tmp_path / "whole"
    write_shards(source(), whole, rows_per_shard=300)
    assert digests(out) == digests(whole)
    assert (out / "shard-00000.parquet").stat().st_mtime_ns == kept["shard-00000.parquet"]
    assert not (out / NOTES).exists()


def test_a_finished_set_is_found_and_another_is_refused(tmp_path):
    first = write_shards(source(100), tmp_path / "out", facts={"seed": 3})
    before = (tmp_path / "out/shard-00000.parquet").stat().st_mtime_ns
    assert write_shards(source(100), tmp_path / "out", facts={"seed": 3}) == first
    assert (tmp_path / "out/shard-00000.parquet").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="holds the shards of another request"):
        write_shards(source(100), tmp_path / "out", facts={"seed": 4})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match="is not empty and holds no shards"):
        write_shards(source(100), tmp_path / "mine")


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "link.wav", "clips/gone.wav"])
def test_clips_outside_the_folder_are_not_packed(tmp_path, clips, name):
    (tmp_path / "secret.wav").write_bytes(b"x")
    os.symlink(tmp_path / "secret.wav", clips / "link.wav")
    row = made(0).model_copy(update={"audio": (name,)})
    with pytest.raises(DataError, match=r"record 'r0': .*(lies outside|no such file)"):
        write_shards(MadeRows("one", 1, lambda number: row), tmp_path / "out", form="webdataset", audio_root=clips)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_damage_is_found(tmp_path):
    out = tmp_path / "out"
    write_shards(source(300), out, rows_per_shard=100)
    data = bytearray((out / "shard-00001.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (out / "shard-00001.parquet").write_bytes(data)
    (out / "shard-00002.parquet").unlink()
    (out / "shard-00009.parquet").write_bytes(b"")
    problems = " ".join(validate(out).problems)
    assert "shard-00001.parquet: its sha256 is not that of the manifest" in problems
    assert "shard-00002.parquet: is missing" in problems
    assert "shard-00009.parquet: is not named by the manifest" in problems


def test_a_manifest_cannot_lead_outside(tmp_path):
    write_shards(source(10), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    manifest["shards"][0]["name"] = "../shard-00000.parquet"
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="lies outside the folder"):
        read_manifest(tmp_path / "out")


MEASURE = """
import resource, sys
sys.path[:0] = sys.argv[3:]
from test_shards import made
from data_builders.row_sources import MadeRows
from data_builders.shards import write_shards
from pathlib import Path
write_shards(MadeRows("made", int(sys.argv[1]), made), Path(sys.argv[2]), rows_per_shard=2000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path):
    """Peak megabytes for 4,000 and for LALM_TEST_ROWS (default 24,000) rows."""
    peaks = []
    for count in (4000, int(os.environ.get("LALM_TEST_ROWS", "24000"))):
        arguments = [str(count), str(tmp_path / str(count)), os.path.dirname(__file__), os.getcwd()]
        done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 30, peaks


@pytest.mark.slow
def test_a_killed_run_loses_nothing(tmp_path):
    """SIGKILL while shards are written by two processes; the second run finishes to the same bytes."""
    out = tmp_path / "out"
    code = MEASURE.replace("rows_per_shard=2000", "rows_per_shard=500, workers=2").replace(
        "write_shards(Made", "if __name__ == '__main__':\n  write_shards(Made"
    )
    script = tmp_path / "killed.py"
    script.write_text(code)
    arguments = [sys.executable, str(script), "20000", str(out), os.path.dirname(__file__), os.getcwd()]
    running = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 120
    while len(list(out.glob("shard-*"))) < 5:
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (out / MANIFEST).exists()
    assert len(list(out.glob("shard-*"))) < 40
    write_shards(source(20000), out, rows_per_shard=500)
    whole = tmp_path / "whole"
    write_shards(source(20000), whole, rows_per_shard=500)
    assert digests(out) == digests(whole)
    assert [record.id for record in read_shards(out)] == [f"r{number}" for number in range(20000)]
