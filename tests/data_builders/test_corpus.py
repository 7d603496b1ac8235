"""A labelled corpus streams its clips; bad rows are named and left out; a wrong folder is told the layout."""

import pytest

from data_builders.sources.esc50 import CORPUS
from lalm.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    for name in ("1-100032-A-0.wav", "5-9032-A-0.wav"):
        (tmp_path / "audio" / name).write_bytes(b"x")
    (tmp_path / "meta/esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n5-9032-A-0.wav,5,1,sea_waves,False,9032,A\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n../meta/esc50.csv,1,0,dog,True,1,A\n"
        "gone.wav,1,0,dog,True,1,A\n1-2-A-0.wav,1,0,,True,2,A\n"
    )
    return tmp_path


def test_clips_carry_label_and_split(folder):
    clips = list(CORPUS.clips(folder, lambda problem: None))
    assert [(clip.id, clip.split, clip.tags) for clip in clips] == [
        ("1-100032-A-0", "train", ("dog",)),
        ("5-9032-A-0", "test", ("sea waves",)),
    ]


def test_bad_rows_are_named(folder):
    problems = []
    list(CORPUS.clips(folder, problems.append))
    assert len(problems) == 4
    assert "'1-100032-A-0' stands twice" in problems[0]
    assert "esc50.csv:5: '../meta/esc50.csv' leads out" in problems[1]
    assert "esc50.csv:6: no audio file 'gone.wav'" in problems[2]
    assert "esc50.csv:7: the column 'category' is empty" in problems[3]


def test_a_folder_that_does_not_fit_is_told_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"is not esc50: no meta/esc50\.csv, audio. Expected:\n  meta/esc50\.csv"):
        list(CORPUS.clips(tmp_path, print))


def test_a_missing_column_is_named(folder):
    (folder / "meta/esc50.csv").write_text("filename,category\n")
    with pytest.raises(DataError, match=r"column\(s\) \['fold'\] are missing"):
        list(CORPUS.clips(folder, print))
