"""A stage from records to batches: what is left out, what every item holds, cached or not, resumed or not."""

import json
import os
import pickle

import pytest
import torch
from tiny_data import RATE, WIDTH, FakeProcessor, fake_encode, make_recipe, write_clip

from lalm.data.cache import StateCache
from lalm.data.dataset import build_stage_data, stack_states, take_single
from lalm.data.encode import fill_cache
from lalm.data.examples import clip_paths, load_records, open_clips
from lalm.errors import DataError


def build(folder, *, cache=None, world_size=1, clips=None, layout=None, **sections):
    recipe = make_recipe(folder, **sections)
    return build_stage_data(recipe, 0, FakeProcessor(), clips or open_clips(recipe, RATE), cache, world_size,
                            layout=layout)  # fmt: skip


def fill(folder, cache, **sections):
    recipe = make_recipe(folder, **sections)
    records, _ = load_records(recipe)
    fill_cache(clip_paths(records), open_clips(recipe, RATE), FakeProcessor(), fake_encode, cache, progress=False,
               report=lambda line: None)  # fmt: skip
    return cache


@pytest.fixture
def cache(tmp_path, corpus):
    return fill(corpus, StateCache(tmp_path / "cache", fingerprint={}, width=WIDTH, dtype="float32"))


@pytest.mark.parametrize("layout", ["none", "rows", "shared_prefix"])
def test_an_epoch_holds_every_record_once(corpus, layout):
    stage = build(corpus, layout=layout)
    assert len(stage.examples) == 18
    seen = sorted(int(index) for item in range(len(stage.plan)) for index in stage.plan[item])
    assert seen == list(range(18))
    supervised = sum(int((stage.dataset[item]["labels"] != -100).sum()) for item in range(len(stage.dataset)))
    assert supervised == sum(example.num_supervised for example in stage.examples)


@pytest.mark.parametrize("layout", ["none", "rows", "shared_prefix"])
def test_cached_states_equal_the_encoded_features(corpus, cache, layout):
    with_cache, without = build(corpus, cache=cache, layout=layout), build(corpus, layout=layout)
    for item in range(len(with_cache.dataset)):
        cached, plain = with_cache.dataset[item], without.dataset[item]
        assert cached.keys() - plain.keys() == {"audio_states", "audio_state_lengths"}
        states, lengths = fake_encode(plain)
        assert torch.equal(cached["audio_state_lengths"], lengths)
        for row, other, length in zip(cached["audio_states"], states, lengths, strict=True):
            assert torch.equal(row[:length], other[:length])
        assert torch.equal(cached["input_ids"], plain["input_ids"])
        positions = sum(FakeProcessor().num_positions(int(length) * RATE // 10) for length in lengths)
        assert positions == int((cached["input_ids"] == FakeProcessor.audio_token_id).sum())


def test_absent_states_fall_back_to_features(corpus, cache):
    (shard,) = cache.folder.glob("*.shard")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    damaged = StateCache(cache.folder.parent, fingerprint={}, width=WIDTH, dtype="float32")
    stage = build(corpus, cache=damaged)
    batches = [stage.dataset[item] for item in range(len(stage.dataset))]
    assert any("input_features" in batch for batch in batches)
    assert any("audio_states" in batch for batch in batches)
    assert damaged.stats().damaged >= 1


def test_a_resumed_stage_goes_on_with_the_same_batches(corpus, cache):
    whole, resumed = build(corpus, cache=cache), build(corpus, cache=cache)
    assert whole.plan.digest == resumed.plan.digest
    for item in range(2, len(whole.dataset)):
        one, other = whole.dataset[item], resumed.dataset[item]
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_data_loader_with_workers_gives_the_items_in_order(corpus, cache):
    stage = build(corpus, cache=cache)
    loader = torch.utils.data.DataLoader(stage.dataset, batch_size=1, collate_fn=take_single, num_workers=1)
    for item, batch in enumerate(loader):
        assert torch.equal(batch["audio_states"], stage.dataset[item]["audio_states"])


def test_the_dataset_can_be_pickled(corpus, cache):
    dataset = build(corpus, cache=cache).dataset
    dataset.processor = None  # the real one can be pickled
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0]["audio_states"], dataset[0]["audio_states"])


def test_accelerate_hands_every_process_its_share_of_every_step(corpus):
    from accelerate.data_loader import BatchSamplerShard

    stage = build(corpus, world_size=2)
    plan = stage.plan
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(stage.dataset), 1, drop_last=False)
    shares = [[item for (item,) in BatchSamplerShard(sampler, 2, rank)] for rank in range(2)]
    per_step = plan.gradient_accumulation_steps
    for step in range(plan.num_steps):
        items = [item for share in shares for item in share[step * per_step : (step + 1) * per_step]]
        drawn = sorted(int(index) for item in items for index in plan[item])
        assert drawn == sorted(plan.step_records(step))


def test_tasks_and_sources_are_filtered(corpus):
    assert len(build(corpus, stage={"tasks": ["even"]}).examples) == 9
    sources = {"all": {"records": "data.jsonl", "tasks": ["odd"], "max_records": 4}}
    stage = build(corpus, data={"sources": sources})
    assert [example.record.task for example in stage.examples] == ["odd"] * 4
    with pytest.raises(DataError, match="no records are left"):
        build(corpus, stage={"tasks": ["nothing"]})


def test_broken_clips_and_records_are_left_out_and_listed(corpus, tmp_path):
    (corpus / "clips/2.wav").write_bytes(os.urandom(300))
    with (corpus / "data.jsonl").open("a") as lines:
        lines.write(json.dumps({"id": "no-answer", "turns": [{"role": "user", "content": "?"}]}) + "\n")
        lines.write(json.dumps({"id": "bad", "turns": []}) + "\n")
    recipe = make_recipe(corpus, data={"max_bad_share": 0.3})
    clips = open_clips(recipe, RATE, quarantine_file=tmp_path / "quarantine.jsonl")
    stage = build(corpus, clips=clips, data={"max_bad_share": 0.3})
    assert len(stage.examples) == 15
    assert len(stage.dropped) == 3 + 1 + 1
    assert "clips/2.wav" in stage.dropped.reasons["r2-1"]
    assert "nothing to learn" in stage.dropped.reasons["no-answer"]
    assert any("data.jsonl:20" in name for name in stage.dropped.reasons)
    assert "and 0 more" not in stage.dropped.summary()
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 1
    with pytest.raises(DataError, match="1 of 20 records"):
        build(corpus)


def test_records_that_the_prompt_refuses_are_left_out_and_when_it_is_all_it_is_an_error(corpus):
    class Refuses(FakeProcessor):
        def encode_turns(self, turns, num_positions, **options):
            if refused in turns[0].content:
                raise DataError("no room for an answer")
            return super().encode_turns(turns, num_positions, **options)

    recipe, refused = make_recipe(corpus), "question 2"
    stage = build_stage_data(recipe, 0, Refuses(), open_clips(recipe, RATE))
    assert len(stage.examples) == 12
    assert stage.dropped.reasons["r0-2"] == "no room for an answer"
    refused = "question"
    with pytest.raises(DataError, match=r"stage 'one': none of its records can be used:\n.*r0-0: no room"):
        build_stage_data(recipe, 0, Refuses(), open_clips(recipe, RATE))


def test_a_clip_that_breaks_during_training_costs_its_records_only(corpus):
    stage = build(corpus, data={"max_bad_share": 0.3})
    (corpus / "clips/1.wav").write_bytes(b"gone")
    batches = [stage.dataset[item] for item in range(len(stage.dataset))]
    kept = sum(int((batch["labels"] == 2).sum()) for batch in batches)  # closing tokens
    assert kept == 15
    write_clip(corpus / "clips/1.wav", 0.5)


def test_paths_that_leave_the_folder_are_refused(corpus):
    with (corpus / "data.jsonl").open("a") as lines:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        lines.write(json.dumps({"id": "escape", "audio": ["../../etc/passwd"], "turns": turns}) + "\n")
    with pytest.raises(DataError, match=r"data\.jsonl \(id 'escape'\).*outside of the data folder"):
        build(corpus)


def test_states_are_padded_at_the_end():
    stacked = stack_states([torch.ones(2, 3), torch.ones(4, 3)])
    assert stacked["audio_states"].sum(dim=(1, 2)).tolist() == [6, 12]
    assert stacked["audio_state_lengths"].tolist() == [2, 4]
