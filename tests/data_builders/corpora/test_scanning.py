"""`lalm data sources` and `lalm data scan`: what is listed, counted and told."""

import pytest
from invented_layouts import write_corpus
from typer.testing import CliRunner

from data_builders.cli import app
from data_builders.corpora import corpus_named
from data_builders.corpora.clips import corpus_clips
from data_builders.scanning import scan
from lalm.errors import DataError

RUN = CliRunner(env={"COLUMNS": "220"})


@pytest.fixture
def folder(tmp_path):
    rows = "a.wav,dog,train\nb.wav,bell,test\nempty.wav,bell,test\ngone.wav,cow,train\n,cow,train\n"
    write_corpus(tmp_path, {"t.csv": "audio,labels,split\n" + rows}, ["a.wav", "b.wav"])
    (tmp_path / "empty.wav").write_bytes(b"")
    return tmp_path


def test_a_scan_counts_and_names_every_problem(folder):
    found = scan("table", folder)
    assert (found.recordings, found.malformed, found.left_out, found.unreadable) == (2, 1, 1, 1)
    assert found.splits == {"train": 1, "test": 1}
    assert found.facts == {"labels": 2}
    assert found.seconds == pytest.approx(0.2)
    assert [problem.partition(": ")[2].partition(" in ")[0] for problem in found.problems] == [
        "is empty (0 bytes). Record it again, or remove it from the data.",
        "audio: there is no audio file 'gone.wav'",
        "audio: is missing or empty",
    ]


def test_without_headers_the_audio_is_not_opened(folder):
    found = scan("table", folder, open_audio=False)
    assert (found.recordings, found.unreadable, found.seconds) == (3, 0, 0.0)


def test_the_command_prints_it_and_a_ceiling_stops_it(folder):
    done = RUN.invoke(app, ["scan", "table", str(folder), "--problems", str(folder / "problems.txt")])
    assert done.exit_code == 0, done.output
    assert "train 1, test 1" in done.output
    assert "t.csv:6: audio: is missing or empty" in done.output
    assert len((folder / "problems.txt").read_text().splitlines()) == 3
    stopped = RUN.invoke(app, ["scan", "table", str(folder), "--max-malformed", "0"])
    assert stopped.exit_code == 1
    assert "more than 0 malformed rows" in stopped.stderr


def test_sources_are_listed_and_one_is_told(tmp_path):
    listed = RUN.invoke(app, ["sources"])
    assert listed.exit_code == 0
    assert {"asterisk", "esc50", "CC-BY-NC-3.0", "librispeech"} <= set(listed.output.replace("│", " ").split())
    one = RUN.invoke(app, ["sources", "fsd50k"])
    assert "FSD50K.metadata tells the licences" in one.output
    assert RUN.invoke(app, ["sources", "fsd5k"]).exit_code == 1
    with pytest.raises(DataError, match="no such folder"):
        scan("esc50", tmp_path / "nowhere")


def test_absurd_lengths_are_left_out_with_the_reason(folder, monkeypatch):
    # A header may claim any length, and a whole day of tape is no clip.
    monkeypatch.setattr("data_builders.scanning.LONGEST_SECONDS", 0.05)
    found = scan("table", folder)
    assert (found.recordings, found.unreadable) == (0, 3)
    assert any("a.wav: lasts 0.1 s" in problem for problem in found.problems)
    monkeypatch.setattr("data_builders.corpora.clips.LONGEST_RECORDING_SECONDS", 0.05)
    skipped = []
    assert list(corpus_clips(corpus_named("table"), folder, skipped.append)) == []
    assert sum(entry.reason == "lasts 0.1 s" for entry in skipped) == 2


@pytest.mark.parametrize("duration", ["-3", "0", "nan", "1e400"])
def test_a_length_that_no_sound_has_is_a_malformed_row(tmp_path, duration):
    rows = f'{{"audio_filepath": "a.wav", "duration": {duration}, "offset": 0.0, "text": "hello"}}\n'
    good = '{"audio_filepath": "a.wav", "duration": 0.1, "offset": 0.0, "text": "hello"}\n'
    write_corpus(tmp_path, {"manifest.json": rows.replace("nan", "NaN") + good}, ["a.wav"])
    found = scan("nemo", tmp_path)
    assert (found.recordings, found.malformed + found.unreadable) == (1, 1), found.problems
    assert any("manifest.json:1" in problem or "lasts" in problem for problem in found.problems)
