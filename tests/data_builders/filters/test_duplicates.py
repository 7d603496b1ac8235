"""Duplicates of sound and text: exact, near, and what only looks alike."""

import numpy as np
import pytest
import soundfile
from invented_rows import RATE, sound

from data_builders.filters.duplicates import Duplicates, TextIds
from lalm.audio.io import save_audio
from lalm.errors import DataError


@pytest.fixture
def clips(tmp_path):
    """0 and 1 are other sounds; 2 is 0 again, 3 is 0 quieter and encoded; 4 does not exist."""
    save_audio(tmp_path / "clips/0.wav", sound(0), RATE)
    save_audio(tmp_path / "clips/1.wav", sound(1), RATE)
    pcm, _ = soundfile.read(tmp_path / "clips/0.wav", dtype="int16")
    soundfile.write(tmp_path / "clips/2.flac", pcm, RATE, subtype="PCM_16")
    save_audio(tmp_path / "clips/3.ogg", sound(0) * 0.4, RATE)
    return tmp_path


def rows_of(record, *names, **fields):
    return [record(number, audio=(f"clips/{name}",), **fields) for number, name in enumerate(names)]


def test_the_same_sound_asked_the_same(clips, record, run):
    rows = rows_of(record, "0.wav", "1.wav", "2.flac", "3.ogg")
    kept, rejects, _ = run(rows, Duplicates(clips))
    assert [row.id for row in kept] == ["r0", "r1"]
    assert [reject[1:] for reject in rejects] == [
        ("r2", "the same sound and text", "r0"),
        ("r3", "the same sound and text", "r0"),
    ]


def test_another_question_on_the_same_sound_stays(clips, record, run):
    rows = [*rows_of(record, "0.wav"), record(1, "Is it loud?", "no", audio=("clips/3.ogg",))]
    assert len(run(rows, Duplicates(clips))[0]) == 2
    assert len(run(rows, Duplicates(clips, of="audio"))[0]) == 1


def test_without_near_only_equal_samples_count(clips, record, run):
    kept, _, _ = run(rows_of(record, "0.wav", "2.flac", "3.ogg"), Duplicates(clips, near=False))
    assert [row.id for row in kept] == ["r0", "r2"]


def test_an_unreadable_clip_is_rejected(clips, record, run):
    _, rejects, _ = run(rows_of(record, "4.wav"), Duplicates(clips))
    assert rejects[0][2] == "the clip cannot be read"


def test_text_alone(tmp_path, record, run):
    long = "The dog barks three times while a train passes behind the house and somebody shouts at it from a window"
    rows = [
        record(0, "Describe it.", long),
        record(1, "describe it", long + "!"),
        record(2, "Describe it.", long + " loudly"),
        record(3, "Describe it.", long[::-1]),
    ]
    kept, rejects, _ = run(rows, Duplicates(tmp_path, of="text"))
    assert [row.id for row in kept] == ["r0", "r3"]
    assert {reject[3] for reject in rejects} == {"r0"}


def test_short_texts_that_differ_in_a_word_stay_apart():
    ids = TextIds()
    texts = ["How many dogs? two", "How many dogs? three", "How many cats? two", "Two dogs? How many"]
    assert [ids.first_of(str(number), text) for number, text in enumerate(texts)] == ["0", "1", "2", "3"]
    assert ids.first_of("9", "HOW many dogs -- two!") == "0"


def test_an_unknown_kind_is_named(tmp_path):
    with pytest.raises(DataError, match=r"of 'sounds' is not known\. Accepted: record, audio, text"):
        Duplicates(tmp_path, of="sounds")


def test_silent_clips_match_only_exactly(tmp_path, record, run):
    for number, length in enumerate((8000, 9000, 8000)):
        save_audio(tmp_path / "clips" / f"{number}.wav", np.zeros(length, np.float32), RATE)
    kept, _, _ = run([record(number) for number in range(3)], Duplicates(tmp_path, of="audio"))
    assert [row.id for row in kept] == ["r0", "r1"]
