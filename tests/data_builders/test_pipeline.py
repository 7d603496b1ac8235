"""A set built from invented clips: whole, the same from any number of workers, without leaks, atomic."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from invented_corpora import invented_clips, same_files, tiny_recipe, tone

from data_builders.clips import SPLITS
from data_builders.jobs import Processes, Share
from data_builders.pipeline import build_from_clips, build_set, builder_fingerprint, find_built, request_of
from data_builders.questions import TASKS
from data_builders.shards import read_shards
from data_builders.splits import leaks
from data_builders.validating import validate
from lalm.audio.io import load_audio, probe_audio
from lalm.data.records import read_records
from lalm.errors import AudioError, DataError

TOLD = ("told_question", "emotion", "pair_speaker", "event_order", "tempo_bpm", "musical_key")
"""Asked of what corpora tell."""
UNCLEAR = ("acoustic_features", "pair_brighter")
"""Asked of few sounds, as most are neither bright nor dark."""


def build(out, recordings=None, *, workers=1, **changes):
    return build_from_clips(
        out,
        recordings or invented_clips(),
        tiny_recipe(**changes),
        runner=Processes(workers),
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
    # No clip says a letter or a word alone or is a chord, and every scene has one channel.
    unasked = {"spoken_letter", "spoken_word", "translation", "scene_side", "chord", *UNCLEAR, *TOLD}
    assert set(TASKS) - set(asked) == unasked - set(asked)
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
    assert same_files(built.folder, again.folder)


def test_another_seed_gives_another_set(built, tmp_path):
    other = build(tmp_path / "other", seed=1)
    assert (other.folder / "test.jsonl").read_bytes() != (built.folder / "test.jsonl").read_bytes()


def test_a_finished_set_is_found_and_a_damaged_one_is_not(tmp_path):
    built = build(tmp_path / "set")
    request = request_of(tiny_recipe(), [])
    assert find_built(built.folder, request) == built.counts
    assert find_built(built.folder, request_of(tiny_recipe(seed=1), [])) is None
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
        entry.id: entry.reason
        for entry in build(tmp_path / "set", clips, clips={"prompts": dict.fromkeys(SPLITS, 500)}).skipped
    }
    assert "silent" in skipped["p-En-01"]


def test_a_build_that_fails_leaves_the_old_set_and_goes_on_where_it_was(tmp_path, monkeypatch):
    built = build(tmp_path / "set")
    before = (built.folder / "train.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("data_builders.pipeline.write_card", fail_late)
        with pytest.raises(RuntimeError, match="killed"):
            build(tmp_path / "set", seed=1)
    assert (tmp_path / "set/train.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.building", "set"]
    with monkeypatch.context() as patch:
        patch.setattr("data_builders.writing.write_one", lambda *_, **__: pytest.fail("a clip was written again"))
        patch.setattr("data_builders.pipeline.ask_all", lambda *_, **__: pytest.fail("a question was asked again"))
        build(tmp_path / "set", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    again = build(tmp_path / "other", seed=1)
    assert same_files(tmp_path / "set", again.folder)


def test_the_rest_of_another_request_is_thrown_away(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("data_builders.pipeline.write_card", fail_late)
        with pytest.raises(RuntimeError, match="killed"):
            build(tmp_path / "set", seed=1)
    built = build(tmp_path / "set")
    assert same_files(built.folder, build(tmp_path / "other").folder)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_blocks_and_shards_are_the_same_bytes_from_1_2_and_8_workers(tmp_path, form):
    changes = {
        "questions": {"block_clips": 40},
        "output": {"form": form, "rows_per_shard": 50},
        "dedupe": {},
        "scenes": {"overlap": 0.5, "background": 0.5, "reverb": 0.5, "filter": 0.3, "stereo": 0.2},
    }
    sets = [build(tmp_path / f"w{workers}", workers=workers, **changes).folder for workers in (1, 2, 8)]
    assert same_files(sets[0], sets[1])
    assert same_files(sets[0], sets[2])
    manifest = json.loads((sets[0] / "manifest.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]][:2] == [
        f"train-0000{number}.{'tar' if form == 'webdataset' else 'parquet'}" for number in (0, 1)
    ]
    found = validate(sets[0])
    assert found.problems == []
    assert found.rows == sum(manifest["counts"].values()) == manifest["request"]["rows"]
    assert (sets[0] / "clips").exists() == (form == "parquet")
    sides = [record for record in read_shards(sets[0]) if record.task == "scene_side"]
    assert {record.answer for record in sides} == {"left", "right"}
    damaged = sets[0] / manifest["shards"][0]["name"]
    damaged.write_bytes(damaged.read_bytes() + b"x")
    assert "sha256 is not that of the manifest" in validate(sets[0]).problems[0]


def test_answers_are_balanced_in_every_block(tmp_path):
    built = build(tmp_path / "set", questions={"block_clips": 60})
    rows = list(read_records(built.folder / "train.jsonl"))
    assert len({record.id for record in rows}) == len(rows)
    presence = Counter(record.answer for record in rows if record.task == "scene_presence")
    assert abs(presence["yes"] - presence["no"]) <= 12


def test_shares_of_several_machines_make_the_set_of_one(tmp_path):
    whole = build(tmp_path / "whole", questions={"block_clips": 40})

    def part(text):
        return build_from_clips(
            tmp_path / "set",
            invented_clips(),
            tiny_recipe(questions={"block_clips": 40}),
            share=Share.parse(text),
            report=lambda line: None,
        )

    assert not part("1/3").whole
    assert not part("0/3").whole
    assert not (tmp_path / "set").exists()
    assert not part("2/3").whole
    assert part("0/1").whole
    assert same_files(whole.folder, tmp_path / "set")
    with pytest.raises(DataError, match=r"'3' is not accepted\. Write 0/4"):
        Share.parse("3")
    with pytest.raises(DataError, match="3/3 is not accepted"):
        Share.parse("3/3")


def test_rows_and_clips_that_filters_and_duplicates_leave_out_are_told(tmp_path):
    clips = invented_clips()
    twin = next(clip for clip in clips if clip.id == "p-En-01")
    clips.append(replace(twin, id="p-En-99"))
    built = build(
        tmp_path / "set",
        clips,
        clips={"prompts": dict.fromkeys(SPLITS, 500)},
        questions={"records": {"train": {"transcription": 500}, "test": {"transcription": 500}}},
        dedupe={"of": "audio"},
    )
    funnel = json.loads((built.folder / "funnel.json").read_text())
    steps = {step["name"]: step for step in funnel["steps"]}
    assert steps["duplicates"]["reasons"] == {"the same sound": 1}
    (reject,) = map(json.loads, (built.folder / "rejects.jsonl").read_text().splitlines())
    assert reject["filter"] == "duplicates"
    assert reject["id"] in ("transcription-p-En-01", "transcription-p-En-99")  # whichever was asked later


def test_a_rebuild_takes_the_place_of_the_old_set(tmp_path):
    build(tmp_path / "set")
    (tmp_path / "set/clips/stray.flac").write_bytes(b"x")
    build(tmp_path / "set", seed=1)
    assert not (tmp_path / "set/clips/stray.flac").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="was not built by this command"):
        build_set(tiny_recipe(), tmp_path, report=lambda line: None)


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
    return replace(clip, render=render)


def fail_late(*_):
    raise RuntimeError("killed")


def fail():
    raise AudioError("x.flac: cannot be decoded")


def silence():
    return tone(440, 1.0) * 0
