"""A streamed stage: each process its own records, steps of one shape, resumed from a few numbers, bad rows named."""

from __future__ import annotations

import json

import pytest
import torch
from shard_sets import write_set
from tiny_data import RATE, FakeProcessor, make_recipe

from lalm.data import streaming
from lalm.data.dataset import build_stage_data
from lalm.data.examples import Dropped, load_source, open_clips
from lalm.errors import DataError


def streamed(tmp_path, *, count=40, form="parquet", rows_per_shard=9, world_size=1, source=(), data=(), **stage):
    if not (tmp_path / "set").exists():
        write_set(tmp_path / "set", count, form=form, rows_per_shard=rows_per_shard)
    section = {"records": "../set", "streamed": True, "shuffle_rows": 6, **dict(source)}
    recipe = make_recipe(tmp_path / "data", data={"sources": {"all": section}, **dict(data)},
                         stage={"batch_records": 8, **stage})  # fmt: skip
    clips = open_clips(recipe, RATE)
    return build_stage_data(recipe, 0, FakeProcessor(), clips, world_size=world_size)


def ids_of(stage, items):
    return [[example.record.id for example in stage.dataset.micro_batch(item).examples] for item in items]


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_epoch_holds_every_record_once(tmp_path, form, world_size):
    stage = streamed(tmp_path, form=form, world_size=world_size)
    plan = stage.plan
    assert plan.num_steps == 5
    assert plan.draws_per_epoch == len(stage.examples) == 40
    assert len(stage.dataset) == 5 * world_size * plan.gradient_accumulation_steps
    batches = ids_of(stage, range(len(stage.dataset)))
    assert all(batches)
    seen = [name for batch in batches for name in batch]
    assert len(seen) == len(set(seen))
    put_off = sum(len(stage.dataset.steps(rank).state(5)["put_off"]) for rank in range(world_size))
    assert len(seen) + put_off == 40
    item = stage.dataset[len(stage.dataset) - 1]
    assert item["input_ids"].numel() <= 128
    assert "input_features" in item


def test_both_forms_give_the_same_batches(tmp_path):
    one = streamed(tmp_path / "a", form="parquet")
    other = streamed(tmp_path / "b", form="webdataset")
    for item in range(len(one.dataset)):
        mine, theirs = one.dataset[item], other.dataset[item]
        assert mine.keys() == theirs.keys()
        assert torch.equal(mine["input_ids"], theirs["input_ids"])
        assert torch.equal(mine["input_features"][0], theirs["input_features"][0])


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_stage_resumed_from_its_state_goes_on_as_if_never_stopped(tmp_path, world_size, stop):
    whole = streamed(tmp_path, world_size=world_size, epochs=None, steps=12, micro_batch_tokens=96)
    per_step = whole.plan.gradient_accumulation_steps * world_size
    batches = ids_of(whole, range(len(whole.dataset)))
    resumed = streamed(tmp_path, world_size=world_size, epochs=None, steps=12, micro_batch_tokens=96)
    first = streamed(tmp_path, world_size=world_size, epochs=None, steps=12, micro_batch_tokens=96)
    ids_of(first, range(stop * per_step))
    for rank in range(world_size):
        first.dataset.save_place(tmp_path, rank, stop)
        assert (tmp_path / f"stream-{rank}.json").stat().st_size < 1000
        resumed.dataset.seek(tmp_path, rank)
    assert ids_of(resumed, range(stop * per_step, len(whole.dataset))) == batches[stop * per_step :]
    assert first.plan.digest == resumed.plan.digest


def test_records_that_do_not_fit_open_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "ROOM", 0.6)
    stage = streamed(tmp_path, epochs=None, steps=8)
    sizes = []
    for step in range(8):
        per_step = stage.plan.gradient_accumulation_steps
        batches = ids_of(stage, range(step * per_step, (step + 1) * per_step))
        sizes.append(sum(map(len, batches)))
        put_off = stage.dataset.steps(0).state(step + 1)["put_off"]
        if step < 7 and put_off:
            after = ids_of(stage, range((step + 1) * per_step, (step + 2) * per_step))
            assert stage.dataset.steps(0).state(step + 1)["put_off"] == put_off
            del after
            break
    assert min(sizes) < 8
    assert put_off


def test_the_state_of_the_last_steps_is_kept_while_a_loader_runs_ahead(tmp_path):
    stage = streamed(tmp_path)
    ids_of(stage, range(len(stage.dataset)))
    steps = stage.dataset.steps(0)
    assert [steps.state(step)["step"] for step in (2, 3, 4, 5)] == [2, 3, 4, 5]
    with pytest.raises(KeyError):
        steps.state(1)


def test_a_stream_is_not_read_out_of_order(tmp_path):
    stage = streamed(tmp_path)
    per_step = stage.plan.gradient_accumulation_steps
    with pytest.raises(DataError, match="step 2 of a stream is asked for, and the next one is 0"):
        stage.dataset[2 * per_step]


def test_another_number_of_processes_cannot_go_on(tmp_path):
    one, two = streamed(tmp_path), streamed(tmp_path, world_size=2)
    one.dataset.save_place(tmp_path, 0, 0)
    with pytest.raises(DataError, match=r"was read by 1 processes.*; 2 cannot go on"):
        two.dataset.seek(tmp_path, 0)
    with pytest.raises(DataError, match="was read by fewer processes"):
        two.dataset.seek(tmp_path, 1)


def test_filters_and_wordings_hold_while_streaming(tmp_path):
    stage = streamed(tmp_path, min_answer_words=5, epochs=None, steps=4, data={"task_tags": "task"})
    names = [name for batch in ids_of(stage, range(len(stage.dataset))) for name in batch]
    assert {int(name[1:]) % 5 for name in names} == {3, 4}
    assert stage.dataset.steps(0).reader.num_unusable == 0
    (example, *_) = stage.dataset.micro_batch(len(stage.dataset) - 1).examples
    assert example.record.question.startswith("[qa] what")
    with pytest.raises(DataError, match="none of the 40 rows of process 0 is of its splits, tasks and lengths"):
        streamed(tmp_path, tasks=["nothing"])


def test_a_broken_clip_is_listed_and_too_many_stop_the_stage(tmp_path, monkeypatch):
    write_set(tmp_path / "set", 40)
    (tmp_path / "data/clips/1.wav").write_bytes(b"RIFF")
    stage = streamed(tmp_path)
    seen = {name for batch in ids_of(stage, range(len(stage.dataset))) for name in batch}
    assert not {f"r{number}" for number in range(1, 40, 4)} & seen
    assert "1.wav" in stage.dropped.reasons["r1"]
    monkeypatch.setattr(streaming, "ROWS_BEFORE_SHARE", 5)
    with pytest.raises(DataError, match=r"rows of process 0 cannot be used, more than data.max_bad_share = 0.01"):
        ids_of(streamed(tmp_path), range(4))


def test_what_needs_all_records_at_once_is_refused(tmp_path):
    for changes, named in (
        ({"in_context": 2}, "in_context"),
        ({"evaluate_every_steps": 2}, "evaluate_every_steps"),
        ({"objective": "contrastive"}, "objectives beside language_model"),
        ({"source": {"max_records": 3}}, "max_records"),
        ({"batch_records": 9, "world_size": 2}, "batch_records = 9 cannot be shared by 2 processes"),
    ):
        with pytest.raises(DataError, match=named):
            streamed(tmp_path, **changes)
    recipe = make_recipe(tmp_path / "data", data={"sources": {
        "all": {"records": "../set", "streamed": True}, "other": {"records": "x.jsonl"}}})  # fmt: skip
    with pytest.raises(DataError, match=r"sources \['other'\] are not streamed"):
        build_stage_data(recipe, 0, FakeProcessor(), open_clips(recipe, RATE))
    section = recipe.data.sources["all"]
    with pytest.raises(DataError, match=r"source 'all' is streamed .*evaluation\.sources"):
        load_source(recipe.data.folder, "all", section, seed=0, max_bad_share=0, dropped=Dropped())


def test_two_sources_keep_their_weights(tmp_path):
    write_set(tmp_path / "set", 30)
    write_set(tmp_path / "more", 10, prefix="m")
    sources = {name: {"records": f"../{name}", "streamed": True, "weight": weight, "shuffle_rows": 4}
               for name, weight in (("set", 1.0), ("more", 3.0))}  # fmt: skip
    recipe = make_recipe(tmp_path / "data", data={"sources": sources}, stage={"steps": 15, "batch_records": 4,
                         "micro_batch_tokens": 512})  # fmt: skip
    stage = build_stage_data(recipe, 0, FakeProcessor(), open_clips(recipe, RATE))
    assert stage.plan.draws_per_epoch == 60
    names = [name for batch in ids_of(stage, range(len(stage.dataset))) for name in batch]
    assert sorted(set(names)) == sorted({f"r{n}" for n in range(30)} | {f"m{n}" for n in range(10)})
    assert sum(name.startswith("m") for name in names) == 30
    assert json.loads(json.dumps(stage.dataset.steps(0).state(15))) == {
        "step": 15, "drawn": {"more": 30, "set": 30}, "put_off": []}  # fmt: skip
