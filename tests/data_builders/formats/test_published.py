"""Each set's own layout is read, and written again as it was, foreign values and all."""

import csv
import json

import pytest
from published import PUBLISHED

from data_builders.formats import FORMATS
from data_builders.formats.base import EXTENSION
from data_builders.formats.files import extra_path, read_rows, write_rows
from data_builders.formats.rows import record_of_row


def put(name, folder):
    file, content, _ = PUBLISHED[name]
    path = folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_all(form, path):
    return [record_of_row(form, row, hints, where) for where, row, hints in read_rows(form, path)]


def rows_of(form, path):
    """The published values of a file, read without the project."""
    if form.container == "csv":
        encoding = "utf-8-sig"
        try:
            path.read_text(encoding)
        except UnicodeDecodeError:
            encoding = "cp1252"
        with path.open(encoding=encoding, newline="") as file:
            return list(csv.DictReader(file))
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if form.container == "jsonl" else json.loads(text)
    rows = rows[form.rows_key] if form.rows_key else rows
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    return [{key: value for key, value in row.items() if key != EXTENSION} for row in rows]


def test_every_format_has_a_file():
    assert PUBLISHED.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_a_published_file_is_read(name, tmp_path):
    first = read_all(FORMATS[name], put(name, tmp_path))[0]
    audio, question, answer, split = PUBLISHED[name][2]
    assert (first.audio, first.answer, first.split) == (audio, answer, split)
    assert question in (None, first.question)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"audio_flamingo"}))
def test_a_published_file_is_written_as_it_was(name, tmp_path):
    form, path = FORMATS[name], put(name, tmp_path)
    write_rows(form, tmp_path / "again", read_all(form, path))
    assert rows_of(form, tmp_path / "again") == rows_of(form, path)


def test_headers_are_kept(tmp_path):
    for name in ("daqa", "audio_flamingo"):
        write_rows(FORMATS[name], tmp_path / name, read_all(FORMATS[name], put(name, tmp_path)))
    assert json.loads((tmp_path / "daqa").read_text())["info"] == {"set": "val", "version": "1.0"}
    manifest = json.loads((tmp_path / "audio_flamingo").read_text())
    assert (manifest["split"], manifest["flamingo_task"], manifest["total_num"]) == ("test", "AQA", 1)
    assert manifest["data"]["0"]["name"] == "wavs/test/a.wav"
    assert manifest["split_path"] == ""


def test_what_a_row_says_beside_is_understood(tmp_path):
    def records(name):
        return read_all(FORMATS[name], put(name, tmp_path))

    assert records("mclotho_aqa")[0].meta == {"language": "fr"}
    assert records("mclotho_aqa")[0].answer_type == "yes_no"
    assert records("openaqa")[1].question == "Which sound comes last?\ngood morning"
    assert records("salmonn")[1].audio == ("a.flac", "b.flac")
    assert records("slam_llm")[1].audio == ("x.ark:17",)
    assert records("audio_dialogues")[1].task == "comparison"
    assert records("daqa")[0].task == "compare_loudness"
    assert [turn.role for turn in records("speech_instruct")[0].turns] == ["system", "user", "assistant"]


def test_a_row_changed_after_export_is_refused(tmp_path):
    form = FORMATS["clotho_aqa"]
    write_rows(form, tmp_path / "a.csv", read_all(form, put("clotho_aqa", tmp_path)))
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text.replace("Is water moving?", "Is ice moving?"))
    with pytest.raises(Exception, match=r"a\.csv:2: was changed after it was exported"):
        read_all(form, tmp_path / "a.csv")
    extra_path(tmp_path / "a.csv").unlink()
    assert read_all(form, tmp_path / "a.csv")[0].question == "Is ice moving?"
