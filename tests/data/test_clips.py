"""Clips: where they are, what is known of them between runs, and what happens to those that cannot be used."""

import json
import os

import numpy as np
import pytest
from tiny_data import RATE, write_clip

from lalm.data import clips as clips_module
from lalm.data.clips import ClipStore, resolve_clip
from lalm.errors import AudioError, DataError


@pytest.fixture
def decoded(monkeypatch):
    """Paths that were decoded."""
    seen = []
    load = clips_module.load_audio
    monkeypatch.setattr(clips_module, "load_audio", lambda path, rate: seen.append(str(path)) or load(path, rate))
    return seen


def test_paths_stay_below_the_folder_of_the_records(tmp_path):
    assert resolve_clip("a/../b.wav", tmp_path) == tmp_path / "b.wav"
    assert resolve_clip("/data/b.wav", tmp_path).as_posix() == "/data/b.wav"
    for name in ("../b.wav", "a/../../b.wav", "..", f"../{tmp_path.name}-other/b.wav"):
        with pytest.raises(DataError, match="outside of the data folder"):
            resolve_clip(name, tmp_path)


def test_a_clip_is_decoded_once_and_its_length_is_exact(tmp_path, decoded):
    path = write_clip(tmp_path / "a.wav", 0.5003, rate=RATE)
    store = ClipStore(RATE, index_file=tmp_path / "clips.jsonl")
    assert store.info(path).num_samples == len(store.load(path)) == round(0.5003 * RATE)
    decoded.clear()
    again = ClipStore(RATE, index_file=tmp_path / "clips.jsonl")
    assert again.info(path) == store.info(path)
    assert decoded == []


def test_a_changed_clip_and_a_damaged_index_line_are_decoded_again(tmp_path, decoded):
    one, two = write_clip(tmp_path / "1.wav", 0.5), write_clip(tmp_path / "2.wav", 0.6)
    index = tmp_path / "clips.jsonl"
    ClipStore(RATE, index_file=index).scan([one, two])
    write_clip(one, 0.7, seed=1)
    decoded.clear()
    store = ClipStore(RATE, index_file=index)
    store.scan([one, two])
    assert decoded == [str(one)]
    assert store.info(one).num_samples == round(0.7 * RATE)
    index.write_bytes(index.read_bytes()[:-20])  # a killed run
    decoded.clear()
    ClipStore(RATE, index_file=index).scan([one, two])
    assert decoded == [str(one)]
    decoded.clear()
    ClipStore(RATE, index_file=index).scan([one, two])
    assert decoded == []
    ClipStore(8000, index_file=index).scan([one])
    assert decoded == [str(one)]


def test_unusable_clips_are_quarantined_with_their_reason(tmp_path):
    good = [write_clip(tmp_path / f"good{number}.wav", 0.5, seed=number) for number in range(4)]
    garbage, empty = tmp_path / "garbage.wav", tmp_path / "empty.wav"
    garbage.write_bytes(os.urandom(500))
    empty.write_bytes(b"")
    short, long = write_clip(tmp_path / "short.wav", 0.01), write_clip(tmp_path / "long.wav", 2.5)
    silent = tmp_path / "silent.wav"
    import soundfile

    soundfile.write(silent, np.zeros(RATE), RATE)
    paths = [*good, garbage, empty, short, long, silent, tmp_path / "absent.wav"]
    store = ClipStore(RATE, max_seconds=2, max_bad_share=0.6, quarantine_file=tmp_path / "run/quarantine.jsonl")
    store.scan(paths)
    assert store.check_bad_share(paths) == 6
    assert all(path in reason for path, reason in store.quarantine.items())
    assert "max_audio_seconds = 2" in store.quarantine[str(long)]
    assert "min_audio_seconds" in store.quarantine[str(short)]
    assert "silent" in store.quarantine[str(silent)]
    lines = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").read_text().splitlines()]
    assert {line["audio"]: line["reason"] for line in lines} == store.quarantine
    assert store.info(garbage) is None
    assert store.info(good[0]) is not None
    with pytest.raises(AudioError):
        store.load(long)


def test_too_many_unusable_clips_are_an_error_that_names_the_first(tmp_path):
    paths = [write_clip(tmp_path / "good.wav", 0.5)]
    for number in range(7):
        paths.append(tmp_path / f"bad{number}.wav")
        paths[-1].write_bytes(b"RIFF")
    store = ClipStore(RATE)
    store.scan(paths)
    with pytest.raises(DataError, match=r"7 of 8 clips cannot be used.*(?s:.*)bad0\.wav(?s:.*)and 2 more"):
        store.check_bad_share(paths)


def test_the_list_of_an_earlier_run_is_removed(tmp_path):
    (tmp_path / "quarantine.jsonl").write_text("{}\n")
    store = ClipStore(RATE, quarantine_file=tmp_path / "quarantine.jsonl")
    path = write_clip(tmp_path / "a.wav", 0.5)
    store.scan([path])
    assert store.check_bad_share([path]) == 0
    assert not (tmp_path / "quarantine.jsonl").exists()
