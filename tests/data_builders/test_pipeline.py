"""A set built from invented clips: whole, the same from any number of workers, without leaks, atomic."""

import json
from collections import Counter

import numpy as np
import pytest
from invented_corpora import invented_clips, tiny_size, tone

from data_builders.clips import SPLITS
from data_builders.pipeline import build_from_clips, build_quickstart, builder_fingerprint, find_built
from data_builders.questions import TASKS
from data_builders.splits import leaks
from lalm.audio.io import load_audio, probe_audio
from lalm.data.records import read_records
from lalm.errors import AudioError, DataError

REQUEST = {"size": "tiny", "seed": 0, "packages": []}


def build(out, clips=None, *, seed=0, workers=1, **changes):
    return build_from_clips(
        out,
        clips or invented_clips(),
        tiny_size(**changes),
        seed=seed,
        workers=workers,
        request=REQUEST | {"seed": seed},
        report=lambda line: None,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("sets") / "set")


@pytest.fixture(scope="module")
def records(built):
    return {split: list(read_records(built.folder / f"{split}.jsonl")) for split in SPLITS}


def is_sentence(record):
    return record.task == "transcription" and len(record.answer.split()) > 1


def test_every_record_is_valid_and_its_clip_is_a_short_16_khz_mono_file(built, records):
    used = {record.audio[0] for rows in records.values() for record in rows}
    assert used == {f"clips/{path.name}" for path in (built.folder / "clips").iterdir()}
    for name in sorted(used)[::7]:
        info = probe_audio(built.folder / name)
        assert (info.sample_rate_hz, info.channels) == (16_000, 1)
        assert 0.4 <= info.seconds <= 8
    ids = [record.id for rows in records.values() for record in rows]
    assert len(ids) == len(set(ids))


def test_no_source_clip_stands_in_two_splits(records):
    groups = {
        split: [group for record in rows for group in record.provenance["groups"]] for split, rows in records.items()
    }
    texts = {split: {record.answer for record in rows if is_sentence(record)} for split, rows in records.items()}
    assert all(groups.values())
    assert not leaks(groups)
    assert not texts["train"] & texts["test"]


def test_only_training_clips_have_variants(records):
    assert any("variant" in record.provenance for record in records["train"])
    assert not any("variant" in record.provenance for record in records["test"] + records["validation"])


def test_every_task_that_the_clips_allow_is_asked(records):
    asked = Counter(record.task for record in records["test"])
    assert set(TASKS) - set(asked) == {"spoken_letter", "spoken_word", "translation"} - set(asked)
    assert all(count <= 8 for count in asked.values())


def test_guarded_answers_are_level(records):
    languages = Counter(record.answer for record in records["train"] if record.task == "spoken_language")
    assert max(languages.values()) - min(languages.values()) <= 1
    presence = Counter(record.answer for record in records["train"] if record.task == "scene_presence")
    assert abs(presence["yes"] - presence["no"]) <= 6


def test_scene_answers_follow_from_the_stored_events(records):
    for record in records["train"] + records["test"]:
        if record.task == "scene_events":
            assert record.answer == ", ".join(event["label"] for event in record.meta["events"])
            assert max(event["onset"] + event["duration"] for event in record.meta["events"]) <= record.meta["seconds"]


def test_the_same_seed_gives_the_same_bytes_from_any_number_of_workers(built, tmp_path):
    again = build(tmp_path / "again", workers=2)
    ours, theirs = (
        sorted(path for path in folder.rglob("*") if path.is_file()) for folder in (built.folder, again.folder)
    )
    assert [path.relative_to(built.folder) for path in ours] == [path.relative_to(again.folder) for path in theirs]
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(ours, theirs, strict=True))


def test_another_seed_gives_another_set(built, tmp_path):
    other = build(tmp_path / "other", seed=1)
    assert (other.folder / "test.jsonl").read_bytes() != (built.folder / "test.jsonl").read_bytes()


def test_a_finished_set_is_found_and_a_damaged_one_is_not(tmp_path):
    built = build(tmp_path / "set")
    request = REQUEST | {"seed": 0}
    assert find_built(built.folder, request) == built.counts
    assert find_built(built.folder, request | {"seed": 1}) is None
    next((built.folder / "clips").iterdir()).unlink()
    assert find_built(built.folder, request) is None


def test_a_broken_clip_is_listed_and_skipped_with_what_was_made_of_it(tmp_path):
    clips = invented_clips()
    broken = next(clip for clip in clips if clip.label == "bell")
    clips = [with_render(clip, fail) if clip.id == broken.id else clip for clip in clips]
    built = build(tmp_path / "set", clips)
    assert any(entry.id == broken.id and "cannot be decoded" in entry.reason for entry in built.skipped)
    rows = [record for split in SPLITS for record in read_records(built.folder / f"{split}.jsonl")]
    assert rows
    assert not any(entry["id"] == broken.id for record in rows for entry in record.provenance["clips"])
    assert json.loads((built.folder / "manifest.json").read_text())["skipped"]


def test_a_silent_clip_is_skipped(tmp_path):
    clips = [with_render(clip, silence) if clip.id == "p-En-01" else clip for clip in invented_clips()]
    skipped = {
        entry.id: entry.reason for entry in build(tmp_path / "set", clips, prompts=dict.fromkeys(SPLITS, 500)).skipped
    }
    assert "silent" in skipped["p-En-01"]


def test_a_build_that_fails_leaves_the_old_set(tmp_path, monkeypatch):
    built = build(tmp_path / "set")
    before = (built.folder / "train.jsonl").read_bytes()
    monkeypatch.setattr("data_builders.pipeline.write_card", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        build(tmp_path / "set", seed=1)
    assert (tmp_path / "set/train.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_rebuild_takes_the_place_of_the_old_set(tmp_path):
    build(tmp_path / "set")
    (tmp_path / "set/clips/stray.flac").write_bytes(b"x")
    build(tmp_path / "set", seed=1)
    assert not (tmp_path / "set/clips/stray.flac").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="was not built by this command"):
        build_quickstart(tmp_path, report=lambda line: None)
    with pytest.raises(DataError, match=r"'huge' is not known. Accepted: quickstart, full"):
        build_quickstart(tmp_path / "new", size="huge")


def test_card_and_notice_say_what_must_be_said(built):
    card = (built.folder / "README.md").read_text()
    assert all(f"| {task} |" in card for task in ("scene_count", "sound_name"))
    assert "speaker and sex are one with the language" in card
    assert "CC-BY-SA-3.0" in (built.folder / "NOTICE").read_text()


def test_half_of_the_other_clips_end_where_the_telephone_ends(records):
    plain = [record for record in records["train"] if record.task in ("sound_name", "instrument_name")]
    share = sum(record.provenance.get("low_passed", False) for record in plain) / len(plain)
    assert 0.25 < share < 0.75


def test_a_written_clip_holds_its_source(built, records):
    record = next(filter(is_sentence, records["test"]))
    wave = load_audio(built.folder / record.audio[0], 16_000)
    clip = next(clip for clip in invented_clips() if clip.id == record.provenance["clips"][0]["id"])
    assert np.allclose(wave, clip.render(), atol=1e-3)


def test_the_fingerprint_is_of_the_code_and_not_of_the_moment():
    assert builder_fingerprint() == builder_fingerprint()


def with_render(clip, render):
    from dataclasses import replace

    return replace(clip, render=render)


def fail():
    raise AudioError("x.flac: cannot be decoded")


def silence():
    return tone(440, 1.0) * 0
