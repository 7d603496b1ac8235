"""Hits by id, sound and words; a registry that can be shared; what is no hit."""

import json

import pytest
from invented_rows import RATE, ogg, sound

from data_builders.filters.contamination import Contamination, ngrams, read_registry, register, source_ids
from lalm.audio.io import save_audio
from lalm.errors import AudioError, DataError

WORDS = "Which of the four sounds follows the second whistle of the passing train?"


@pytest.fixture
def registry(tmp_path, record):
    """An evaluation set of two clips, one with a YouTube id."""
    for number in range(2):
        save_audio(tmp_path / "eval" / f"{number}.wav", sound(number), RATE)
    rows = [
        record(0, WORDS, "The bell.", audio=("0.wav",), meta={"ytid": "AbCdEfGh1jK"}),
        record(1, "What is it?", "A gong.", audio=("1.wav",)),
    ]
    path = tmp_path / "eval.registry.jsonl"
    counts = register(rows, tmp_path / "eval", "bench", path)
    assert counts["audio_hash"] == counts["audio_print"] == 2
    assert counts["ngram"] == len(ngrams(f"{WORDS} The bell."))
    return path


@pytest.mark.parametrize(
    ("wave", "fields", "reason"),
    [
        (sound(50), {"audio": ("YAbCdEfGh1jK_30.000.wav",)}, "its source is in an evaluation set"),
        (sound(50), {"provenance": {"clips": [{"url": "https://youtu.be/AbCdEfGh1jK"}]}}, "its source"),
        (sound(0), {}, "its sound"),
        (ogg(sound(1) * 0.5)[700:], {}, "its sound"),
        (sound(51), {"question": WORDS.upper()}, "its words"),
    ],
)
def test_hits(tmp_path, registry, record, wave, fields, reason):
    row = record(5, **{"audio": ("mine.wav",), **fields})
    save_audio(tmp_path / row.audio[0], wave, RATE)
    verdict = Contamination([registry], tmp_path).judge(row)
    assert not verdict.kept
    assert verdict.reason.startswith(reason)
    assert verdict.note.startswith("bench: ")


def test_what_only_resembles_is_no_hit(tmp_path, registry, record):
    save_audio(tmp_path / "1.wav", sound(52), RATE)
    row = record(5, "Which of the four sounds is it?", "A gong.", audio=("1.wav",), meta={"ytid": "AbCdEfGh1jX"})
    assert Contamination([registry], tmp_path).judge(row).kept


def test_the_registry_holds_no_words(registry):
    assert "whistle" not in registry.read_text()
    assert {entry["kind"] for entry in read_registry(registry)} == {"id", "audio_hash", "audio_print", "ngram"}


def test_a_clip_that_cannot_be_read(tmp_path, registry, record):
    verdict = Contamination([registry], tmp_path).judge(record(1, audio=("gone.wav",)))
    assert verdict.reason == "the clip cannot be read"
    with pytest.raises(AudioError, match=r"gone\.wav"):
        register([record(1, audio=("gone.wav",))], tmp_path, "bench", tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


def test_ids_are_brought_to_one_form(record):
    meta = {"freesound_id": 8000, "url": "https://freesound.org/people/x/sounds/77/", "uniq_id": "u9"}
    found = source_ids(record(audio=("a/84-121123-0001.flac", "b/test_3.wav"), meta=meta))
    assert found == [
        "file:84-121123-0001", "freesound:77", "freesound:8000", "id:u9", "librispeech:84-121123-0001",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ['{"set": "a"}', "[]", "no", '{"set":"a","kind":"audio_print","value":"xyz"}'])
def test_a_broken_registry_names_the_line(tmp_path, line):
    good = json.dumps({"set": "a", "kind": "id", "value": "b"})
    (tmp_path / "r.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=r"r\.jsonl:2: .* is no entry"):
        list(read_registry(tmp_path / "r.jsonl"))


def test_an_empty_or_missing_registry_protects_nothing(tmp_path):
    (tmp_path / "r.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no entry is registered"):
        Contamination([tmp_path / "r.jsonl"], tmp_path)
    with pytest.raises(DataError, match="no such registry"):
        Contamination([tmp_path / "gone.jsonl"], tmp_path)
