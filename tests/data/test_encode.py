"""Filling the cache: cached = recomputed, resumable, and a broken clip is left out."""

import pytest
import torch
from tiny_data import RATE, WIDTH, FakeProcessor, fake_encode, write_clip

from lalm.data.cache import StateCache
from lalm.data.clips import ClipStore
from lalm.data.encode import estimate_bytes, fill_cache
from lalm.errors import DataError


@pytest.fixture
def paths(tmp_path):
    return [str(write_clip(tmp_path / f"{number}.wav", 0.2 + 0.13 * number, seed=number)) for number in range(9)]


def open_cache(tmp_path, dtype="float16"):
    return StateCache(tmp_path / "cache", fingerprint={}, width=WIDTH, dtype=dtype)


def fill(paths, clips, cache, encode=fake_encode, **options):
    settings = {"progress": False, "report": lambda line: None, "batch_seconds": 2.0}
    return fill_cache(paths, clips, FakeProcessor(), encode, cache, **settings | options)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_cached_equals_recomputed_to_the_bit(tmp_path, paths, dtype):
    clips, cache = ClipStore(RATE), open_cache(tmp_path, dtype)
    report = fill(paths, clips, cache)
    assert report.num_encoded == 9
    assert report.audio_seconds == pytest.approx(sum(0.2 + 0.13 * number for number in range(9)), abs=0.01)
    for path in paths:
        states, steps = fake_encode(FakeProcessor().audio_inputs([clips.load(path)]))
        cached = cache.get(clips.info(path).audio_hash)
        assert torch.equal(cached, states[0, : steps[0]].to(getattr(torch, dtype)))


def test_batches_keep_to_the_budget_the_longest_first(tmp_path, paths):
    batches = []

    def encode(inputs):
        batches.append((inputs["feature_lengths"][0] / 100).tolist())
        return fake_encode(inputs)

    fill(paths, ClipStore(RATE), open_cache(tmp_path), encode)
    assert all(len(batch) * max(batch) <= 2.0 + 0.1 for batch in batches)
    order = [seconds for batch in batches for seconds in batch]
    assert order == sorted(order, reverse=True)
    assert len(batches) < 9


def test_a_killed_filling_goes_on_where_it_stopped(tmp_path, paths):
    calls = []

    def dies(inputs):
        calls.append(len(inputs["feature_lengths"][0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fake_encode(inputs)

    with pytest.raises(KeyboardInterrupt):
        fill(paths, ClipStore(RATE), open_cache(tmp_path), dies)
    stored = sum(calls[:2])
    report = fill(paths, ClipStore(RATE), open_cache(tmp_path))
    assert (report.num_already_stored, report.num_encoded) == (stored, 9 - stored)
    assert fill(paths, ClipStore(RATE), open_cache(tmp_path)).num_encoded == 0


def test_processes_share_the_work(tmp_path, paths):
    encoded = [fill(paths, ClipStore(RATE), open_cache(tmp_path), rank=0, world_size=2).num_encoded]
    encoded.append(fill(paths, ClipStore(RATE), StateCache(tmp_path / "other", fingerprint={}, width=WIDTH),
                        rank=1, world_size=2).num_encoded)  # fmt: skip
    assert sorted(encoded) == [4, 5]


def test_equal_recordings_are_encoded_once(tmp_path, paths):
    copy = str(write_clip(tmp_path / "copy.wav", 0.2, seed=0))
    assert fill([*paths, copy], ClipStore(RATE), open_cache(tmp_path)).num_encoded == 9


def test_broken_clips_are_left_out(tmp_path, paths):
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    clips = ClipStore(RATE, max_bad_share=0.5)
    breaks_later = paths[4]

    class Processor(FakeProcessor):
        def audio_inputs(self, waveforms):
            open(breaks_later, "wb").close()
            return super().audio_inputs(waveforms)

    report = fill_cache([*paths, str(tmp_path / "broken.wav")], clips, Processor(), fake_encode, open_cache(tmp_path),
                        batch_seconds=1.0, progress=False, report=lambda line: None)  # fmt: skip
    assert (report.num_encoded, report.num_broken) == (8, 2)
    assert breaks_later in clips.quarantine


def test_states_that_the_dtype_cannot_hold_are_quarantined(tmp_path, paths):
    clips = ClipStore(RATE, max_bad_share=1.0)

    def huge(inputs):
        states, lengths = fake_encode(inputs)
        return states * 1e9, lengths

    assert fill(paths, clips, open_cache(tmp_path), huge).num_encoded == 0
    assert "not finite in float16" in clips.quarantine[paths[0]]


def test_the_size_is_told_first_and_a_full_disk_refused(tmp_path, paths, monkeypatch):
    lines, cache = [], open_cache(tmp_path)
    assert estimate_bytes(100, 10, cache) == 100 * 10 * WIDTH * 2
    fill(paths, ClipStore(RATE), cache, steps_per_second=10, report=lines.append)
    assert lines[0].startswith("Encoding 9 clips, 6 s of audio, about 0 MiB")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match="are free"):
        fill(paths, ClipStore(RATE), open_cache(tmp_path, "float32"), steps_per_second=10)
