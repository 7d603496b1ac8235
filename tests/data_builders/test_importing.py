"""Records of one's own from a CSV: good rows are written, broken ones listed."""

import pytest
from invented_corpora import wav_bytes

from data_builders.importing import import_file
from lalm.data.records import read_records
from lalm.errors import DataError


@pytest.fixture
def table(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/dog.wav").write_bytes(wav_bytes(1.0))
    (tmp_path / "in/broken.wav").write_bytes(b"no audio")
    path = tmp_path / "in/mine.csv"
    path.write_text(
        "file,question,answer\ndog.wav,What is it?,A dog.\nbroken.wav,What?,Nothing.\ngone.wav,What?,Nothing.\n"
        "dog.wav,What else?,\n"
    )
    return path


def test_good_rows_are_written_with_paths_from_the_new_place(table, tmp_path):
    result = import_file(table, tmp_path / "out/records.jsonl")
    assert result.count == 1
    assert next(read_records(tmp_path / "out/records.jsonl")).audio == ("../in/dog.wav",)


def test_broken_rows_are_listed_with_what_is_wrong(table, tmp_path):
    problems = "\n".join(import_file(table, tmp_path / "records.jsonl").problems)
    assert "broken.wav" in problems
    assert "gone.wav" in problems
    assert "mine.csv:5" in problems


def test_strict_stops_at_the_first(table, tmp_path):
    with pytest.raises(DataError, match=r"mine\.csv"):
        import_file(table, tmp_path / "records.jsonl", strict=True)
    assert not (tmp_path / "records.jsonl").exists()
