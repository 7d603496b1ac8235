"""Gated cross-attention: at the start the text model; who hears which clip; batch, packing, cache, chat, save."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lalm import LalmForConditionalGeneration
from lalm.data.dataset import build_stage_data
from lalm.data.records import Turn
from lalm.errors import RecipeError
from lalm.inference.generate import Request, generate_answers
from lalm.inference.scoring import score_options
from lalm.inference.session import ChatSession
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run, save_trained
from lalm.model.cross_attention import CrossAttention, context_inputs, range_of_step
from lalm.model.grouped_attention import attend_in_tiles
from lalm.model.memory_plan import plan_memory
from lalm.model.plan import plan_model
from lalm.recipe.load import load_recipe
from lalm.recipe.schema import CrossAttentionSection
from lalm.training.batches import open_clip_store
from lalm.training.stages import enter_stage

SECTION = "language_model.cross_attention={every: 1, num_heads: 2, head_size: 8, audio_width: 24}"


def wave(seconds: float, seed: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype(np.float32)


def loud(model) -> None:
    """Open gates and uneven attention, so that every difference shows."""
    torch.manual_seed(7)
    with torch.no_grad():
        for part in ("language_model", "projector"):
            for name, parameter in model.parts()[part]:
                if name.endswith("_gate"):
                    parameter.fill_(0.8)
                elif parameter.ndim > 1:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)


@pytest.fixture
def recipe(tiny_data, tmp_path):
    places = [f"data.folder={tiny_data}", f"output.folder={tmp_path / 'run'}", "encoders.0.dtype=float32"]
    return load_recipe("tiny", [*places, SECTION])


@pytest.fixture
def built(recipe):
    model, processor = build_model(recipe)
    loud(model)
    return model, processor


def inputs_of(processor, clips, text="What is heard?", answer=None):
    turns = [Turn(role="user", content="<audio>" * len(clips) + text)]
    turns += [Turn(role="assistant", content=answer)] if answer else []
    counts = [processor.num_positions(len(clip)) for clip in clips]
    encoded = processor.encode_turns(tuple(turns), counts, add_generation_prompt=answer is None)
    inputs = {"input_ids": torch.tensor([encoded.input_ids])}
    if answer:
        inputs["labels"] = torch.tensor([encoded.labels])
    return inputs | (processor.audio_inputs(clips) if clips else {})


def test_a_clip_is_one_position(built, recipe):
    model, processor = built
    assert processor.num_positions(16000 * 20) == 1
    assert plan_model(recipe).positions[10] == 1
    ids = inputs_of(processor, [wave(1, 0), wave(4, 1)])["input_ids"]
    assert int((ids == processor.audio_token_id).sum()) == 2
    clips = processor.audio_inputs([wave(1, 0)])
    with pytest.raises(ValueError, match="holds 2 placeholders, one for each clip, but 1 clips come"):
        model(input_ids=ids, **clips)
    with pytest.raises(ValueError, match="holds 2 placeholders, but no audio was given"):
        model(input_ids=ids)


def test_it_starts_as_the_text_model(recipe):
    model, processor = build_model(recipe)
    text = inputs_of(processor, [])["input_ids"]
    torch.testing.assert_close(model(input_ids=text).logits, model.language_model(input_ids=text).logits)
    one = inputs_of(processor, [wave(1, 0)])
    embeds = model.embed_inputs(**one)["inputs_embeds"]
    assert torch.equal(model(**one).logits, model.language_model(inputs_embeds=embeds).logits)


def test_text_before_a_clip_does_not_hear_it(built):
    model, processor = built
    one, two = inputs_of(processor, [wave(1, 0)]), inputs_of(processor, [wave(1, 1)])
    first, second = model(**one).logits[0], model(**two).logits[0]
    place = one["input_ids"][0].tolist().index(processor.audio_token_id)
    assert torch.equal(first[:place], second[:place])
    assert ((first[place:] - second[place:]).abs().amax(dim=-1) > 1e-4).all()


@pytest.mark.parametrize(("sees", "hears_first"), [("preceding", True), ("last", False)])
def test_which_of_two_clips_is_heard(recipe, sees, hears_first):
    section = recipe.language_model.cross_attention.model_copy(update={"sees": sees, "every": 2})
    language_model = recipe.language_model.model_copy(update={"cross_attention": section})
    model, _ = build_model(recipe.model_copy(update={"language_model": language_model}))
    loud(model)
    hidden, clips, heard = torch.randn(1, 1, 32), torch.tensor([[1, 2]]), torch.tensor([[[0, 2]]])
    states = torch.randn(1, 2, 24)
    read = []
    for change in (0.0, 1.0):  # of the first clip
        model.cross_attention.set_context(states + torch.tensor([change, 0.0])[:, None], clips, heard, 1)
        read.append(model.cross_attention.read(0, hidden))
    assert (not torch.equal(*read)) == hears_first


def test_two_clips_keep_their_order(built):
    model, processor = built
    there = model(**inputs_of(processor, [wave(1, 0), wave(0.7, 1)], answer="Yes.")).loss
    back = model(**inputs_of(processor, [wave(0.7, 1), wave(1, 0)], answer="Yes.")).loss
    assert there.item() != pytest.approx(back.item(), abs=1e-6)


@pytest.mark.parametrize("layout", ["none", "rows", "shared_prefix"])
def test_every_layout_has_the_loss_of_one_by_one(recipe, built, layout):
    model, processor = built
    data = build_stage_data(recipe, 0, processor, open_clip_store(recipe, processor), layout=layout)
    numbers = [int(number) for number in data.plan[0]]
    assert len(numbers) > 2
    losses, counts = [], []
    for number in numbers:
        item = data.examples[number]
        losses.append(
            model(
                input_ids=torch.tensor(item.input_ids[None], dtype=torch.long),
                labels=torch.tensor(item.labels[None], dtype=torch.long),
                **processor.audio_inputs([data.dataset.clips.load(item.clips[0])]),
            ).loss
        )
        counts.append(item.num_supervised)
    counts = torch.tensor(counts, dtype=torch.float)
    expected = (torch.stack(losses) * counts).sum() / counts.sum()
    torch.testing.assert_close(model(**data.dataset[0]).loss, expected, atol=1e-5, rtol=1e-5)


def test_questions_that_share_a_prefix_share_its_clip(built):
    model, processor = built
    clip = wave(1, 0)
    ids = inputs_of(processor, [clip], answer="Yes.")
    prefix = ids["input_ids"][0].tolist().index(processor.audio_token_id) + 1
    tail = ids["input_ids"][:, prefix:]
    length = tail.shape[1]
    packed = torch.cat([ids["input_ids"], tail], dim=1)
    branches = torch.tensor([[0] * prefix + [1] * length + [2] * length])
    labels = torch.cat([ids["labels"], ids["labels"][:, prefix:]], dim=1)
    positions = torch.tensor([[*range(prefix + length), *range(prefix, prefix + length)]])
    audio = processor.audio_inputs([clip])
    rows = {"position_ids": positions, "group_ids": torch.zeros_like(packed), "branch_ids": branches}
    alone = model(**ids).loss
    for in_tiles in (False, True):  # where rows of other models are padded
        attend_in_tiles(model.language_model, wanted=in_tiles)
        shared = model(input_ids=packed, labels=labels, **rows, **audio).loss
        torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-5)


def test_noise_behind_the_clips_of_a_shorter_row_is_not_heard(built):
    model, processor = built
    short, long = inputs_of(processor, [wave(0.5, 0)]), inputs_of(processor, [wave(6, 1)])
    both = {
        "input_ids": torch.cat([short["input_ids"], long["input_ids"]]),
        **processor.audio_inputs([wave(0.5, 0), wave(6, 1)]),
    }
    torch.testing.assert_close(model(**both).logits[:1], model(**short).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_the_cache_is_that_without_and_of_each_alone(recipe, built, beams):
    model, processor = built
    options = recipe.generation.model_copy(update={"num_beams": beams, "max_new_tokens": 6})
    requests = [
        Request(
            (Turn(role="user", content="<audio>" * count + "What? " * (1 + count)),),
            waveforms=tuple(wave(0.5 + 0.4 * number, 10 * count + number) for number in range(count)),
        )
        for count in (1, 2, 0)
    ]
    together = generate_answers(model, processor, requests, options, batch_size=3)
    assert together == [generate_answers(model, processor, [item], options)[0] for item in requests]
    one = inputs_of(processor, [wave(1, 0), wave(2, 1)])
    arguments = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = model.generate(**one, **arguments)
    assert torch.equal(cached, model.generate(**one, **arguments, use_cache=False))
    with torch.no_grad():
        for block in model.cross_attention.blocks:
            block.attention_gate.zero_()
            block.feed_forward_gate.zero_()
    assert not torch.equal(cached, model.generate(**one, **arguments))


def test_a_conversation_reads_on_as_if_from_the_start(recipe, built):
    model, processor = built
    options = recipe.generation.model_copy(update={"max_new_tokens": 4})
    session = ChatSession(model, processor, options)
    session.add_audio(wave(1, 0))
    session.ask("What is heard?")
    session.add_audio(wave(2, 1))
    second = session.ask("And <audio> this?")
    turns = [*session.turns[:-1]]
    request = Request(
        (Turn(role="user", content="<audio>" + turns[0].content), *turns[1:]),
        waveforms=tuple(clip.waveform for clip in session.clips),
    )
    assert generate_answers(model, processor, [request], options) == [second.text]


def test_scores_are_those_of_the_training_loss(built):
    model, processor = built
    clip = wave(1, 0)
    request = Request((Turn(role="user", content="<audio>What is heard?"),), waveforms=(clip,))
    scores = score_options(model, processor, request, ["A tone.", "No"])
    for score, answer in zip(scores, ("A tone.", "No"), strict=True):
        loss = model(**inputs_of(processor, [clip], answer=answer)).loss
        assert -score.mean == pytest.approx(loss.item(), abs=1e-4)


def test_blocks_train_with_the_projector_and_beside_an_adapter(recipe, built):
    model, processor = built
    enter_stage(model, recipe.stages[0])
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"multi_modal_projector", "cross_attention"}
    enter_stage(model, recipe.stages[1])
    model.train()
    model(**inputs_of(processor, [wave(1, 0)], answer="Yes.")).loss.backward()
    parts = model.parts()
    assert all(value.grad is not None for part in ("projector", "lora") for _, value in parts[part])
    assert any("gate" in name for name, _ in parts["projector"])


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_clip_that_no_text_hears_changes_no_loss_and_reaches_every_block(recipe, built, checkpoints):
    """What a process with text alone runs, so that no other process waits for its blocks."""
    model, processor = built
    enter_stage(model, recipe.stages[1])
    if checkpoints:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    text = inputs_of(processor, [], answer="Yes.")
    noise = processor.audio_inputs([wave(1, 0)])
    alone, beside = model(**text).loss, model(**text, **noise, audio_is_unheard=True).loss
    assert beside.item() == alone.item()
    beside.backward()
    for name, value in model.parts()["projector"]:
        assert value.grad is not None, name
        assert name.endswith("placeholder") or not value.grad.any(), name


def test_gradient_checkpointing_changes_no_gradient(recipe, built):
    model, processor = built
    enter_stage(model, recipe.stages[1])
    model.train()
    found = []
    for checkpoints in (False, True):
        model.zero_grad()
        if checkpoints:
            model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**inputs_of(processor, [wave(1, 0)], answer="Yes.")).loss.backward()
        found.append([value.grad.clone() for _, value in model.parts()["projector"]])
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(before, after)


def test_a_run_is_saved_and_loaded(recipe, built, tmp_path):
    model, processor = built
    save_trained(tmp_path / "run", model, processor, recipe, stage="align")
    loaded = load_run(tmp_path / "run")[0]
    assert loaded.cross_attention.blocks[0].attention_gate.item() == pytest.approx(0.8)
    for name, value in model.parts()["projector"]:
        assert torch.equal(dict(loaded.parts()["projector"])[name], value)
    model.save_pretrained(tmp_path / "whole")
    whole = LalmForConditionalGeneration.from_pretrained(tmp_path / "whole", dtype=torch.float32).eval()
    one = inputs_of(processor, [wave(1, 0)])
    torch.testing.assert_close(whole(**one).logits, model(**one).logits)


FAMILIES = {
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {"head_dim": 8}, "gemma2": {"head_dim": 8},
    "phi3": {"pad_token_id": 0}, "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4}, "falcon": {}, "gpt_neox": {}, "smollm3": {"pad_token_id": 0},
}  # fmt: skip
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_enter_every_family(family):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family]})).eval()
    blocks = CrossAttention(CrossAttentionSection(every=2, num_heads=2, head_size=8), model, 6)
    ids = torch.randint(3, 64, (1, 7))
    before = model(input_ids=ids).logits
    context = torch.randn(1, 4, 6), torch.ones(1, 4, dtype=torch.long), None
    blocks.set_context(*context, 7)
    assert torch.equal(model(input_ids=ids).logits, before)
    with torch.no_grad():
        blocks.blocks[0].attention_gate.fill_(1.0)
    assert len(blocks.blocks) == 1
    assert not torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)


def test_packed_conversations_hear_their_own_clips_only():
    ids = torch.tensor([[9, 1, 2, 1, 9, 9, 3, 4]])
    groups = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1]])
    audio = context_inputs(ids, 9, torch.randn(3, 4, 5), torch.tensor([4, 1, 2]), groups)
    assert audio["audio_context"].shape == (1, 7, 5)
    assert audio["audio_context_clips"].tolist() == [[1, 1, 1, 1, 2, 3, 3]]
    assert audio["audio_range"][0].tolist() == [[0, 1], [0, 1], [0, 1], [1, 1], [1, 2], [1, 3], [1, 3], [3, 3]]


def test_the_range_of_every_step_of_decoding():
    prompt = torch.tensor([[[0, 0], [0, 1], [0, 2]]])
    assert range_of_step(prompt, 2, is_first=True)[0, :, 1].tolist() == [1, 2]
    assert range_of_step(prompt, 1, is_first=False)[0, :, 1].tolist() == [2]
    assert range_of_step(prompt, 5, is_first=False)[0, :, 1].tolist() == [0, 1, 2, 2, 2]


def test_the_plan_counts_the_blocks(recipe, built):
    model, _ = built
    plan = plan_model(recipe)
    counted = {part: sum(value.numel() for _, value in values) for part, values in model.parts().items()}
    assert plan.parameters == counted
    plain = recipe.model_copy(
        update={"language_model": recipe.language_model.model_copy(update={"cross_attention": None})}
    )
    with_blocks, without = (plan_memory(item, live_encoder=False)[0] for item in (recipe, plain))
    assert with_blocks.activations > without.activations


def test_more_layers_than_there_are_is_refused(recipe):
    section = recipe.language_model.cross_attention.model_copy(update={"every": 3})
    language_model = recipe.language_model.model_copy(update={"cross_attention": section})
    with pytest.raises(ValueError, match=r"cross_attention.every is 3, the language model has 2 layers"):
        build_model(recipe.model_copy(update={"language_model": language_model}))


def test_the_contrastive_objective_is_refused():
    with pytest.raises(RecipeError, match="compares audio with text embeddings"):
        load_recipe("tiny", [SECTION, "stages.align.objective=contrastive"])


def test_audio_flamingo_has_the_published_size():
    """2.2 B with OPT-IML-1.3B (arXiv 2402.01831): blocks before each of its 24 layers, audio of width 1024."""
    config = AutoConfig.for_model(
        "opt", hidden_size=2048, num_hidden_layers=24, ffn_dim=8192, num_attention_heads=32, word_embed_proj_dim=2048
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        blocks = CrossAttention(CrossAttentionSection(), model, 1024)
    total = sum(value.numel() for module in (model, blocks) for value in module.parameters())
    assert total == pytest.approx(2.2e9, rel=0.02)
