"""Units through the whole model: positions that follow from what is heard, the cache, training, chat, refusals."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from lalm import LalmForConditionalGeneration, LalmProcessor
from lalm.audio.io import load_audio
from lalm.data.dataset import build_stage_data
from lalm.data.examples import clip_paths, load_records
from lalm.data.records import Turn
from lalm.encoders import load_encoder
from lalm.encoders.units import save_centres
from lalm.errors import DataError, ModelError, RecipeError
from lalm.inference.generate import Request, generate_answers
from lalm.inference.scoring import score_options
from lalm.inference.session import ChatSession
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run, verify_seals
from lalm.processing.clips import features_of
from lalm.recipe.load import load_recipe
from lalm.training.batches import fill_state_cache, open_clip_store
from lalm.training.dry_run import print_plan
from lalm.training.train import run_recipe

COUNT = 8
SILENT = Console(file=io.StringIO())


def changes(tiny_data, tmp_path, **units):
    units = {"count": COUNT, "centres": str(tmp_path / "km.safetensors"), **units}
    encoder = {"name": "hubert", "base": "random", "dtype": "float32", "chunk_seconds": 0.5, "units": units}
    places = [f"data.folder={tiny_data}", f"output.folder={tmp_path / 'run'}"]
    return [*places, f"encoders={json.dumps([encoder])}", "projector={name: units}"]


@pytest.fixture(autouse=True)
def centres(tiny_data, tmp_path, monkeypatch):
    """States of the clips as centres: each clip has several units, and many are repeated."""
    monkeypatch.setenv("LALM_CACHE", str(tmp_path / "cache"))
    recipe = load_recipe("tiny", changes(tiny_data, tmp_path))
    torch.manual_seed(recipe.seed)
    plain = load_encoder(recipe.encoders[0].model_copy(update={"units": None}))
    waves = [load_audio(path, 16000)[:7000] for path in clip_paths(load_records(recipe)[0])][:4]
    audio = features_of([plain.front_end], waves, 16000)
    with torch.no_grad():
        states = plain(audio["input_features"][0], audio["feature_lengths"][0])
    chosen = [clip[step] for clip in states.states[:4] for step in (3, 10)]
    save_centres(tmp_path / "km.safetensors", torch.stack(chosen).numpy())


@pytest.fixture
def recipe(tiny_data, tmp_path):
    return load_recipe("tiny", changes(tiny_data, tmp_path))


@pytest.fixture
def built(recipe):
    return build_model(recipe)


@pytest.fixture
def clips(recipe):
    return [load_audio(path, 16000) for path in clip_paths(load_records(recipe)[0])]


def steps_of(model, processor, waves):
    with torch.no_grad():
        return model.encode_audio(**processor.audio_inputs(waves))


def filled(recipe, model, processor):
    from accelerate import PartialState

    clip_store = open_clip_store(recipe, processor)
    stages = list(range(len(recipe.stages)))
    return clip_store, fill_state_cache(recipe, stages, model, processor, clip_store, PartialState(), SILENT)


def test_repeats_are_dropped_over_the_whole_clip_wherever_it_is_cut(tiny_data, tmp_path, built, clips):
    model, processor = built
    kept = build_model(load_recipe("tiny", changes(tiny_data, tmp_path, drop_repeats=False)))[0]
    units, lengths = steps_of(model, processor, clips)
    all_units, all_lengths = steps_of(kept, processor, clips)
    assert all_lengths.tolist() == [kept.audio_tower.length_rule.count(len(wave)) for wave in clips]
    assert any(len(wave) > 8000 for wave in clips), "some clips are cut into pieces"
    for row, length, all_row, all_length in zip(units, lengths, all_units, all_lengths, strict=True):
        every = all_row[:all_length, 0].tolist()
        expected = [unit for i, unit in enumerate(every) if i == 0 or unit != every[i - 1]]
        assert row[:length, 0].tolist() == expected
        assert not row[length:].any()
        assert 1 < len(expected) < len(every)


def test_a_batch_is_as_one_by_one(built, clips):
    model, processor = built
    units, lengths = steps_of(model, processor, clips)
    for number, wave in enumerate(clips):
        alone, length = steps_of(model, processor, [wave])
        assert length[0] == lengths[number]
        assert torch.equal(alone[0], units[number, : length[0]])


def test_positions_of_training_follow_the_cached_units(recipe, built):
    """Placeholders = vectors in every micro-batch, the cache in between; and each clip has its own number."""
    model, processor = built
    clip_store, cache = filled(recipe, model, processor)
    assert cache.dtype == "int32"
    data = build_stage_data(recipe, 0, processor, clip_store, cache)
    found = {}
    for example in data.examples:
        for path, (start, end) in zip(example.clips, example.audio_spans, strict=True):
            found[path] = end - start
    waves = [load_audio(path, 16000) for path in found]
    units, lengths = steps_of(model, processor, waves)
    assert list(found.values()) == (lengths + 2).tolist()
    assert [processor.num_positions(len(wave)) for wave in waves] != list(found.values())
    for path, row, length in zip(found, units, lengths.tolist(), strict=True):
        cached = cache.get(clip_store.info(path).audio_hash)
        assert torch.equal(cached, row[:length])
        assert cache.num_steps(clip_store.info(path).audio_hash) == length
    for item in range(len(data.dataset)):
        inputs = data.dataset[item]
        assert not inputs["audio_states"].is_floating_point()
        vectors = model.get_audio_features(inputs["audio_states"] * 0 + 1, *[None] * 2, inputs["audio_states"],
                                           inputs["audio_state_lengths"])  # fmt: skip
        assert len(vectors) == int((inputs["input_ids"] == processor.audio_token_id).sum())
        assert torch.isfinite(model(**inputs).loss)


def test_a_clip_whose_units_are_lost_is_left_out_and_told(recipe, built):
    model, processor = built
    clip_store, cache = filled(recipe, model, processor)
    data = build_stage_data(recipe, 0, processor, clip_store, cache)
    examples = [data.examples[int(index)] for index in data.plan[0]]
    lost = examples[0].audio_hashes[0]
    cache._places.pop(bytes.fromhex(lost))
    cache.refresh = lambda: None
    batch = data.dataset.micro_batch(0)
    assert {name for example in batch.examples for name in example.audio_hashes} == {
        name for example in examples for name in example.audio_hashes
    } - {lost}
    assert "cannot be read there any more" in clip_store.quarantine[examples[0].clips[0]]


def test_an_unencoded_clip_costs_its_record(recipe, built):
    model, processor = built
    clip_store, cache = filled(recipe, model, processor)
    path = clip_paths(load_records(recipe)[0])[0]
    count, cache.num_steps = cache.num_steps, lambda name: (
        None if name == clip_store.info(path).audio_hash else count(name)
    )  # fmt: skip
    data = build_stage_data(recipe, 0, processor, clip_store, cache)
    assert ["its clip was not encoded" in reason for reason in data.dropped.reasons.values()] == [True]


def test_embeddings_train_and_nothing_else_of_the_language_model(recipe):
    """Stage align trains the projector alone; instruct the adapter beside it."""
    before = {name: value.clone() for name, value in build_model(recipe)[0].named_parameters()}
    run_recipe(recipe, until="align", console=SILENT)
    after = dict(load_run(recipe.run_folder(), device="cpu")[0].named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"multi_modal_projector.embedding.weight"}
    assert after["multi_modal_projector.embedding.weight"].shape[0] == COUNT + 2


def test_it_trains_saves_loads_and_answers_the_same_alone_and_together(recipe, clips):
    run_recipe(recipe, console=SILENT)
    folder = recipe.run_folder()
    assert all(holds for _, holds, _ in verify_seals(folder))
    model, processor, loaded = load_run(folder, device="cpu")
    assert loaded == recipe
    asked = [Request((Turn(role="user", content="What is heard?"),), (clip,)) for clip in clips[:3]]
    options = recipe.generation.model_copy(update={"max_new_tokens": 4})
    together = generate_answers(model, processor, asked, options)
    assert together == [generate_answers(model, processor, [request], options)[0] for request in asked]

    session = ChatSession(model, processor, options)
    session.add_audio(clips[0])
    assert session.ask("What is heard?").text == together[0]
    session.add_audio(clips[1])
    session.ask("And now?")
    scores = score_options(model, processor, asked[0], ["yes", "no"])
    states, lengths = steps_of(model, processor, [clips[0]])
    again = score_options(model, processor, Request(asked[0].turns, states=(states[0, : lengths[0]],)), ["yes", "no"])
    assert [score.total for score in scores] == [score.total for score in again]

    # As transformers' users do it: the processor of the folder, and the model that tells it what is heard.
    processor = LalmProcessor.from_pretrained(folder)
    content = [{"type": "audio", "audio": clips[0]}, {"type": "text", "text": "What is heard?"}]
    wanted = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "sampling_rate": 16000}
    with pytest.raises(ModelError, match=r"call processor.listen_with\(model\) first"):
        processor.apply_chat_template([{"role": "user", "content": content}], **wanted)
    processor.listen_with(LalmForConditionalGeneration.from_pretrained(folder).eval())
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **wanted)
    assert int((inputs["input_ids"] == processor.audio_token_id).sum()) == int(inputs["audio_state_lengths"][0]) + 2
    reply = model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=processor.stop_token_ids)
    text = processor.decode(reply[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == together[0]
    two = processor(["<audio>a", "<audio><audio>b"], audio=[[clips[0]], [clips[1], clips[2]]], sampling_rate=16000)
    assert int((two["input_ids"] == processor.audio_token_id).sum()) == int((two["audio_state_lengths"] + 2).sum())


def test_whole_weights_keep_the_centres(built, tmp_path, clips):
    model, processor = built
    model.save_pretrained(tmp_path / "whole")
    loaded = LalmForConditionalGeneration.from_pretrained(tmp_path / "whole").eval()
    for ours, theirs in zip(steps_of(model, processor, clips), steps_of(loaded, processor, clips), strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_tells_all_units_apart(tiny_data, tmp_path):
    """Between 512 and 1024 bfloat16 holds every fourth whole number."""
    many = np.random.default_rng(0).normal(size=(1000, 32))
    save_centres(tmp_path / "many.safetensors", many)
    recipe = load_recipe("tiny", changes(tiny_data, tmp_path, count=1000, centres=str(tmp_path / "many.safetensors")))
    model = build_model(recipe)[0].to(torch.bfloat16)
    units = torch.tensor([[[513], [514], [999]]], dtype=torch.int32)
    vectors = model.get_audio_features(audio_states=units, audio_state_lengths=torch.tensor([3]))
    assert torch.equal(vectors[1:-1], model.multi_modal_projector.embedding.weight[[513, 514, 999]])


def test_a_dry_run_says_that_it_counts_the_most(recipe):
    console = Console(file=io.StringIO(), width=200)
    print_plan(recipe, [0], 1, console)
    assert "positions are the most there can be" in console.file.getvalue()


def test_without_repeats_dropped_positions_follow_the_length_alone(tiny_data, tmp_path, clips):
    more = ["data.cache_states=false"]
    recipe = load_recipe("tiny", [*changes(tiny_data, tmp_path, drop_repeats=False), *more])
    model, processor = build_model(recipe)
    assert processor.step_rule is None
    _, lengths = steps_of(model, processor, clips)
    assert [processor.num_positions(len(wave)) for wave in clips] == (lengths + 2).tolist()
    data = build_stage_data(recipe, 0, processor, open_clip_store(recipe, processor))
    assert torch.isfinite(model(**data.dataset[0]).loss)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["projector={name: linear}"], "projector.name: 'linear' reads states, encoders[0].units needs 'units'"),
        (["encoders.hubert.units=null"], "projector.name: 'units' needs an encoder with `units`"),
        (["stages.align.learning_rates.encoder=1e-5"], "stages[0].learning_rates.encoder: nothing in front of"),
        (["data.cache_states=false"], "data.cache_states: with encoders[0].units.drop_repeats"),
        (["data.sources.train.streamed=true"], "data.sources.train.streamed: with encoders[0].units.drop_repeats"),
        (["encoders.hubert.layers=weighted"], "units: centres belong to one frozen state"),
        (["encoders.hubert.units.counts=7"], "encoders[0].units.counts: unknown key. Did you mean 'count'?"),
        (["stages.align.objective=classification", "stages.align.learning_rates={projector: 1e-3, heads: 1e-3}",
          "stages.align.head_input=encoder"], "stages[0].head_input: 'encoder' reads states"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_units_is_refused(tiny_data, tmp_path, more, message):
    with pytest.raises(RecipeError) as refused:
        load_recipe("tiny", [*changes(tiny_data, tmp_path), *more])
    assert message in str(refused.value)


def test_two_encoders_with_units_are_refused(tiny_data, tmp_path):
    plain = changes(tiny_data, tmp_path)
    encoder = json.loads(plain[2].partition("=")[2])[0]
    plain[2] = f"encoders={json.dumps([encoder, {'name': 'wav2vec2', 'base': 'random'}])}"
    with pytest.raises(RecipeError, match="units are read alone, without other encoders beside them"):
        load_recipe("tiny", plain)


def test_units_of_a_trained_encoder_are_refused_in_time(recipe, built):
    recipe = recipe.model_copy(update={"init_parts": ("encoder",)})
    with pytest.raises(DataError, match="its encoder was trained in the run that `init` names"):
        filled(recipe, *built)
