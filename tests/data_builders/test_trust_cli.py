"""The commands that filter, split, seal and check, on a small folder."""

import json

import pytest
from typer.testing import CliRunner

from data_builders.cli import app
from lalm.data.records import read_records, write_records

runner = CliRunner()


def call(*arguments, code=0):
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output.replace("\n", "")


@pytest.fixture
def records(tiny_data):
    """Eight records, of which the second refuses and the third repeats the first."""
    rows = list(read_records(tiny_data / "train.jsonl"))
    turns = rows[1].turns
    rows[1] = rows[1].model_copy(
        update={"turns": (turns[0], turns[1].model_copy(update={"content": "I'm sorry, I cannot hear it."}))}
    )
    rows[2] = rows[0].model_copy(update={"id": "again"})
    write_records(tiny_data / "train.jsonl", rows)
    return tiny_data / "train.jsonl"


def test_filter_writes_kept_rejects_and_funnel(records):
    out = records.parent / "kept.jsonl"
    shown = call("filter", records, "-o", out, "--use", "phrases,grounding")
    assert "refuses to answer 1" in shown
    assert [row.id for row in read_records(out)] == ["r0", "again", "r3", "r4", "r5", "r6", "r7"]
    assert json.loads((records.parent / "kept.rejects.jsonl").read_text())["id"] == "r1"
    assert json.loads((records.parent / "kept.funnel.json").read_text())["steps"][0]["entered"] == 8
    assert "'smell' is not known. Accepted: phrases" in call("filter", records, "-o", out, "--use", "smell", code=1)
    assert "is the file that is read" in call("filter", records, "-o", records, code=1)


def test_a_review_is_obeyed_and_paths_follow_the_file(records, tmp_path):
    review = tmp_path / "review.jsonl"
    review.write_text('{"file": "train.jsonl", "id": "r3", "verdict": "reject", "note": "silent"}\n')
    out = tmp_path / "deep" / "er" / "kept.jsonl"
    call("filter", records, "-o", out, "--use", "phrases", "--review", review)
    rows = list(read_records(out))
    assert "r3" not in [row.id for row in rows]
    assert all((out.parent / row.audio[0]).is_file() for row in rows)


def test_dedupe_names_the_first(records):
    assert "the same sound and text 1" in call("dedupe", records, "-o", records.parent / "kept.jsonl")
    assert json.loads((records.parent / "kept.rejects.jsonl").read_text())["note"] == "r0"
    assert "of 'smell'" in call("dedupe", records, "-o", records.parent / "x.jsonl", "--of", "smell", code=1)


def test_decontaminate_fails_on_a_hit_and_names_it(records, tmp_path):
    rows = list(read_records(records))
    write_records(records.parent / "eval.jsonl", [rows[5]])
    registry = tmp_path / "bench.registry.jsonl"
    assert "1 audio_hash" in call("register", records.parent / "eval.jsonl", "--name", "bench", "-o", registry)
    out = records.parent / "clean.jsonl"
    shown = call("decontaminate", records, "--against", registry, "-o", out, code=1)
    assert "r5: its sound is in an evaluation set: bench: r5 (same samples)" in shown
    assert "r5" not in [row.id for row in read_records(out)]
    assert "no record touches" in call("decontaminate", out, "--against", registry)
    assert "no such registry" in call("decontaminate", out, "--against", tmp_path / "gone", code=1)


def test_split_keeps_old_clips_where_they_are(records, tmp_path):
    def sides():
        found = {}
        for side in ("train", "validation", "test"):
            for row in read_records(out / f"{side}.jsonl"):
                assert row.split == side
                assert (out / row.audio[0]).is_file()
                found[row.id] = side
        return found

    rows = list(read_records(records))
    out = tmp_path / "split"
    write_records(records, rows[:5])
    call("split", records, "-o", out, "--test", "0.5", "--validation", "0")
    first = sides()
    assert first["r0"] == first["again"]
    write_records(records, rows)
    call("split", records, "-o", out, "--test", "0.5", "--validation", "0")
    assert {id_: sides()[id_] for id_ in first} == first
    assert len(sides()) == 8
    assert "sum to 1" in call("split", records, "-o", out, "--test", "1.5", code=1)


def test_shards_are_written_found_and_checked(records, tmp_path):
    out = tmp_path / "shards"
    assert "8 records in 3 shards" in call(
        "export-to-shards", records, "-o", out, "--rows", 3, "--format", "webdataset"
    )
    assert "8 records" in call("validate", out)
    (out / "shard-00001.tar").write_bytes(b"damaged")
    assert "its sha256 is not that of the manifest" in call("validate", out, code=1)
    call("export-to-shards", records, "-o", out, "--rows", 3, "--format", "webdataset")
    assert "0 problems" in call("validate", out)


def test_validate_lists_every_problem_of_a_file(records):
    rows = list(read_records(records))
    (records.parent / "clips/empty.wav").write_bytes(b"")
    rows[3] = rows[3].model_copy(update={"audio": ("clips/gone.wav",)})
    rows[4] = rows[4].model_copy(update={"audio": ("../outside.wav",)})
    rows[5] = rows[5].model_copy(update={"audio": ("/etc/hostname",)})
    rows[6] = rows[6].model_copy(update={"audio": ("clips/empty.wav",)})
    rows[7] = rows[7].model_copy(update={"id": "r0"})
    write_records(records, rows)
    with records.open("a") as lines:
        lines.write('{"id": "bad", "turns": []}\n')
    shown = call("validate", records, code=1)
    for problem in (
        "gone.wav", "../outside.wav: lies outside", "/etc/hostname: is not a relative path", "empty.wav",
        "the id stands twice", "train.jsonl:9 (id 'bad')", "8 records, 7 clips, 0 sealed files, 6 problems",
    ):  # fmt: skip
        assert problem in shown, shown
    assert "gone.wav" not in call("validate", records, "--no-audio", code=1)
    assert "is no file of records" in call("validate", records.parent, code=1)


def test_view_of_nothing_is_an_error_in_one_line(tmp_path):
    assert "holds no records" in call("view", tmp_path, code=1)
