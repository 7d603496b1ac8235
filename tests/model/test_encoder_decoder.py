"""An encoder-decoder language model (T5, tiny and random): prompt to the encoder, answer from the decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from lalm.data.dataset import build_stage_data
from lalm.data.records import Turn
from lalm.errors import ModelError
from lalm.inference.generate import Request, generate_answers
from lalm.inference.scoring import score_options
from lalm.inference.session import ChatSession
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run, save_trained, verify_seals
from lalm.model.decoder import byte_tokenizer
from lalm.model.encoder_decoder import cut_at_answer
from lalm.model.plan import plan_model
from lalm.recipe.load import load_recipe
from lalm.training.batches import open_clip_store
from lalm.training.stages import enter_stage

SIZES = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 512,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}


def wave(seconds: float, seed: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype(np.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def changes(base, tiny_data, tmp_path):
    places = [f"data.folder={tiny_data}", f"output.folder={tmp_path / 'run'}", "encoders.0.dtype=float32"]
    return [*places, f"language_model.base={base}", "data.packing=none", "language_model.lora.targets=attention"]


@pytest.fixture
def recipe(changes):
    return load_recipe("tiny", changes)


@pytest.fixture
def built(recipe):
    return build_model(recipe)


def request(seed, text="What is heard?", seconds=1.0):
    return Request((Turn(role="user", content=f"<audio>{text}"),), waveforms=(wave(seconds, seed),))


def inputs_of(processor, clip, answer, text="What is heard?"):
    turns = (Turn(role="user", content=f"<audio>{text}"), Turn(role="assistant", content=answer))
    encoded = processor.encode_turns(turns, [processor.num_positions(len(clip))])
    ids, labels = torch.tensor([encoded.input_ids]), torch.tensor([encoded.labels])
    return {"input_ids": ids, "labels": labels, **processor.audio_inputs([clip])}


def test_the_loss_is_transformers_own(built):
    """T5's own loss on the same prompt and answer, which it shifts itself."""
    model, processor = built
    inputs = inputs_of(processor, wave(1, 0), "A tone.")
    answer = inputs["labels"][inputs["labels"] != -100][None]
    start = int((inputs["labels"][0] != -100).long().argmax())
    embeds = model.embed_inputs(**{k: v for k, v in inputs.items() if k != "labels"})["inputs_embeds"][:, :start]
    torch.testing.assert_close(model(**inputs).loss, model.language_model(inputs_embeds=embeds, labels=answer).loss)


def test_a_batch_has_the_loss_of_one_by_one(recipe, built):
    model, processor = built
    data = build_stage_data(recipe, 0, processor, open_clip_store(recipe, processor))
    padded = [i for i in range(len(data.plan)) if not data.dataset[i]["attention_mask"].all()]
    losses, counts = [], []
    for number in data.plan[padded[0]]:
        item = data.examples[int(number)]
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
    torch.testing.assert_close(model(**data.dataset[padded[0]]).loss, expected, atol=1e-5, rtol=1e-5)


def test_adapter_and_projector_train_in_encoder_and_decoder(recipe, built):
    model, processor = built
    enter_stage(model, recipe.stages[1])
    adapted = {name.split(".")[1] for name, _ in model.parts()["lora"]}
    assert adapted == {"encoder", "decoder"}
    assert any("EncDecAttention" in name for name, _ in model.parts()["lora"])
    model(**inputs_of(processor, wave(1, 0), "A tone.")).loss.backward()
    assert all(value.grad is not None for part in ("projector", "lora") for _, value in model.parts()[part])


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_of_a_batch_are_those_of_one_by_one(recipe, built, beams):
    model, processor = built
    options = recipe.generation.model_copy(update={"num_beams": beams})
    requests = [request(0, "Who?", 0.5), request(1, "What is it that is heard?", 2.0), request(2)]
    together = generate_answers(model, processor, requests, options, batch_size=3)
    assert together == [generate_answers(model, processor, [item], options)[0] for item in requests]


def test_a_conversation_answers_as_a_request_does(recipe, built):
    model, processor = built
    session = ChatSession(model, processor, recipe.generation)
    session.add_audio(wave(1, 0))
    pieces = []
    answer = session.ask("What is heard?", on_text=pieces.append)
    assert generate_answers(model, processor, [request(0)], recipe.generation) == [answer.text]
    assert "".join(pieces) == answer.text


def test_scores_are_those_of_the_loss(built):
    model, processor = built
    scores = score_options(model, processor, request(0), ["A tone.", "No"])
    for score, answer in zip(scores, ("A tone.", "No"), strict=True):
        assert -score.mean == pytest.approx(model(**inputs_of(processor, wave(1, 0), answer)).loss.item(), abs=1e-4)


def test_a_run_is_saved_loaded_sealed_and_planned(recipe, built, tmp_path):
    model, processor = built
    save_trained(tmp_path / "run", model, processor, recipe, stage="align")
    loaded = load_run(tmp_path / "run")[0]
    inputs = inputs_of(processor, wave(1, 0), "A tone.")
    torch.testing.assert_close(loaded(**inputs).loss, model(**inputs).loss)
    assert all(holds for _, holds, _ in verify_seals(tmp_path / "run"))
    counted = {part: sum(value.numel() for _, value in values) for part, values in model.parts().items()}
    assert plan_model(recipe).parameters == counted


def test_packing_and_cross_attention_are_refused(changes):
    with pytest.raises(ModelError, match=r"data.packing: rows is for decoders; 't5' has an encoder"):
        build_model(load_recipe("tiny", [*changes, "data.packing=rows"]))
    with pytest.raises(ValueError, match="cross_attention enters decoder-only language models"):
        build_model(load_recipe("tiny", [*changes, "language_model.cross_attention={every: 1}"]))


def test_several_answers_in_a_row_are_refused():
    labels = torch.tensor([[-100, 5, -100, 6], [-100, -100, 7, 8]])
    with pytest.raises(ValueError, match=r"one answer a conversation, got \[2, 1\]"):
        cut_at_answer(torch.zeros(2, 4, 3), labels, None)


def test_where_a_row_is_cut():
    embeds = torch.arange(10.0).view(2, 5, 1)
    labels = torch.tensor([[-100, -100, 5, 6, -100], [-100, 7, -100, -100, -100]])
    prompts, mask, targets = cut_at_answer(embeds, labels, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]))
    assert prompts[..., 0].tolist() == [[0.0, 1.0], [5.0, 6.0]]
    assert mask.tolist() == [[1, 1], [1, 0]]
    assert targets.tolist() == [[5, 6], [7, -100]]
