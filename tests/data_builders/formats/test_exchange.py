"""Files in and out: broken rows with their place, a ceiling, clips that stay in their folder, nothing half written."""

import io
import json
import random
import wave

import pytest
from typer.testing import CliRunner

from data_builders.cli import app
from data_builders.formats import FORMATS, format_named
from data_builders.formats.exchange import export_file, import_file
from data_builders.formats.files import write_rows
from lalm.data.records import Record, read_records, write_records
from lalm.errors import DataError

LTU, TABLE = FORMATS["ltu"], FORMATS["table"]
GOOD = '{"instruction": "What?", "audio_id": "a.wav", "output": "Wind."}'


def wav_bytes(seconds):
    """Noise in mono, 16 bits, 8 kHz."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(random.Random(0).randbytes(int(seconds * 16000)))
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.wav").write_bytes(wav_bytes(1.0))
    (tmp_path / "in/broken.wav").write_bytes(b"no audio")
    return tmp_path / "in"


def put(folder, text, name="rows.json"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def bring(form, file, **options):
    return import_file(form, file, file.parent.parent / "out", **options)


def test_good_rows_are_written_and_broken_ones_listed_with_line_and_column(folder):
    file = put(
        folder,
        f'[\n{GOOD},\n {{"instruction": "What?", "audio_id": 5, "output": "x"}},\n  {{"a": tru}},\n"text",\n'
        f'{{"instruction": "unclosed\n, "output": 1}},\n{{"x": NaN}},\n{GOOD.replace("a.wav", "broken.wav")},\n'
        f"{GOOD.replace('a.wav', 'gone.wav')},\n{GOOD.replace('Wind', 'ice ' + chr(92) + 'ud800')},\n{GOOD}]",
    )
    done = bring(LTU, file)
    assert done.count == 2
    places = [problem.removeprefix(str(file)) for problem in done.problems]
    assert places[0] == ":3:2: audio_id: must be str, is int"
    assert places[1].startswith(":4:9: is no JSON")
    assert places[2] == ":5:1: is no object but str"
    assert places[3].startswith(":6:")
    assert places[4] == ":8:1: NaN is no JSON value"
    assert "broken.wav" in places[5]
    assert "gone.wav" in places[6]
    assert places[7].startswith(":11:1: holds half of a character")
    assert [record.id for record in read_records(folder.parent / "out/records.jsonl")] == ["ltu-1", "ltu-10"]


def test_lines_name_their_line_and_column(folder):
    file = put(folder, b'{"key": "u", "source": "a.wav", "target": "x"}\n\n{"key": \n{"key": "\xff"}\n', "rows.jsonl")
    done = bring(FORMATS["slam_llm"], file)
    assert done.count == 1
    assert [problem.removeprefix(str(file))[:5] for problem in done.problems] == [":3:9:", ":4:10"]
    assert "is not UTF-8" in done.problems[1]


def test_rows_of_a_csv_name_their_line_and_column(folder):
    file = put(
        folder, b'file,question,answer\na.wav,"Two\nlines?",yes\na.wav,What?\na.wav,\xff?,no\na.wav,What?,\n', "t.csv"
    )
    done = bring(TABLE, file)
    assert done.count == 1
    problems = [problem.removeprefix(str(file)) for problem in done.problems]
    assert problems == [":4: column 3: 2 cells, not 3", ":5: column 2 (question): is not UTF-8", ":6: answer: is empty"]


def test_a_missing_column_is_named(folder):
    with pytest.raises(DataError, match=r"t\.csv:1: the column\(s\) \['answer'\] are missing"):
        bring(TABLE, put(folder, "file,question\na.wav,What?\n", "t.csv"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"[{GOOD},", r"rows\.json:1:67: the file ends before its rows are closed"),
        (f"[{GOOD}}}]", "a value must stand here"),
    ],
)
def test_a_file_that_is_no_list(folder, text, what):
    with pytest.raises(DataError, match=what):
        bring(LTU, put(folder, text))


def test_a_file_of_something_else_has_no_records(folder):
    assert bring(LTU, put(folder, "")).count == 0
    assert "is no object but int" in bring(LTU, put(folder, "5")).problems[0]


def test_the_ceiling_stops_and_writes_nothing(folder):
    file = put(folder, "[" + ",\n".join([GOOD] + ["{}"] * 4) + "]")
    with pytest.raises(DataError, match=r"instruction: is missing\nMore than 3 rows are broken"):
        bring(LTU, file, max_problems=3)
    assert not (folder.parent / "out/records.jsonl").exists()
    assert bring(LTU, file, max_problems=4).count == 1


@pytest.mark.parametrize("name", ["/etc/a.wav", "../a.wav", "x/../../a.wav", "C:/a.wav", "x\\a.wav", "a\0.wav"])
def test_clips_stay_in_their_folder(folder, name):
    done = bring(LTU, put(folder, json.dumps([{"instruction": "q", "audio_id": name, "output": "o"}])))
    assert done.count == 0
    assert repr(name) in done.problems[0]


def test_a_link_out_of_the_folder_is_refused(folder):
    (folder.parent / "secret.wav").write_bytes(wav_bytes(1.0))
    (folder / "link.wav").symlink_to(folder.parent / "secret.wav")
    done = bring(LTU, put(folder, f"[{GOOD.replace('a.wav', 'link.wav')}]"))
    assert "a link leads out of" in done.problems[0]


def test_a_beginning_is_taken_off(folder):
    file = put(folder, f"[{GOOD.replace('a.wav', '/data/set/a.wav')}]")
    assert bring(LTU, file, strip="/data/set/").count == 1


def test_clips_are_named_from_the_new_place_and_back(folder):
    bring(LTU, put(folder, f"[{GOOD}]"))
    records = folder.parent / "out/records.jsonl"
    assert next(read_records(records)).audio == ("../in/a.wav",)
    with pytest.raises(DataError, match="lies outside"):
        export_file(LTU, records, folder / "again.json", max_problems=0)
    assert not (folder / "again.json").exists()
    assert export_file(LTU, records, folder / "again.json", clips=folder, plain=True).count == 1
    assert json.loads((folder / "again.json").read_text()) == json.loads(f"[{GOOD}]")


def test_what_a_format_cannot_say_is_counted_or_left_out(folder):
    def record(id_, audio):
        turns = [{"role": "user", "content": "Same?"}, {"role": "assistant", "content": "no"}]
        return Record.model_validate({"id": id_, "audio": audio, "turns": turns})

    write_records(folder / "r.jsonl", [record("one", ["a.wav"]), record("two", ["a.wav", "b.wav"])])
    assert export_file(LTU, folder / "r.jsonl", folder / "x.json").missed == {"audio": 1}
    assert export_file(FORMATS["llava"], folder / "r.jsonl", folder / "y.json").missed == {}
    assert export_file(LTU, folder / "r.jsonl", folder / "z.json", only_whole=True).count == 1


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    def failing():
        yield Record.model_validate({"id": "a", "turns": [{"role": "user", "content": "q"}]})
        raise RuntimeError("stop")

    for form in (LTU, TABLE):
        (tmp_path / "kept").write_text("old")
        with pytest.raises(RuntimeError):
            write_rows(form, tmp_path / "kept", failing())
        assert (tmp_path / "kept").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_unknown_format_is_named():
    with pytest.raises(DataError, match=r"format: 'ltuu' is not known\. Accepted: table, daqa"):
        format_named("ltuu")


def test_the_commands_import_export_and_list(folder):
    run = CliRunner().invoke
    file, out = put(folder, f"[{GOOD}]"), folder / "set"
    assert run(app, ["import", "ltu", str(file), "-o", str(out)]).exit_code == 0
    exported = run(app, ["export", "daqa", str(out / "records.jsonl"), "-o", str(out / "d"), "--clips", str(folder)])
    assert "1 records; 0 rows left out" in exported.output
    assert run(app, ["import", "daqa", str(out / "d"), "-o", str(folder / "b"), "--clips", str(folder)]).exit_code == 0
    (back,), (first,) = read_records(folder / "b/records.jsonl"), read_records(out / "records.jsonl")
    assert back == first
    listed = run(app, ["formats"], env={"COLUMNS": "200"}).output
    assert all(name in listed for name in FORMATS)
