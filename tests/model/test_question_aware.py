"""A projector that reads the question, through the whole model: training batches, generation, chat, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lalm.data.dataset import build_stage_data
from lalm.data.records import Turn
from lalm.errors import DataError, RecipeError
from lalm.inference.generate import Request, generate_answers
from lalm.inference.session import ChatSession
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run, save_trained, verify_seals
from lalm.recipe.load import load_recipe
from lalm.training.batches import open_clip_store

CHANGES = ["projector.reads_question=true", "data.packing=rows"]


def wave(seconds: float, seed: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype(np.float32)


@pytest.fixture
def recipe(tiny_data, tmp_path):
    places = [f"data.folder={tiny_data}", f"output.folder={tmp_path / 'run'}", "encoders.0.dtype=float32"]
    return load_recipe("tiny", [*places, *CHANGES])


@pytest.fixture
def built(recipe):
    model, processor = build_model(recipe)
    with torch.no_grad():  # random attention is so even that a question would hardly show
        for part in ("language_model", "projector"):
            for _, parameter in model.parts()[part]:
                parameter.mul_(5 if parameter.ndim > 1 else 1)
    return model, processor


def encoded(processor, clips, question="What is heard?", answer="A tone."):
    turns = (Turn(role="user", content="<audio>" * len(clips) + question), Turn(role="assistant", content=answer))
    return processor.encode_turns(turns, [processor.num_positions(len(clip)) for clip in clips])


def test_each_clip_gets_the_text_of_its_own_turn(built):
    _, processor = built
    turns = (
        Turn(role="user", content="<audio><audio>First?"),
        Turn(role="assistant", content="Yes."),
        Turn(role="user", content="And <audio> this?"),
    )
    questions = processor.encode_turns(turns, [2, 2, 2], add_generation_prompt=True).questions
    assert [processor.tokenizer.decode(ids) for ids in questions] == ["First?", "First?", "And this?"]


def test_the_question_changes_what_is_heard(built):
    model, processor = built
    clip = wave(1, 0)
    one, two = (encoded(processor, [clip], question) for question in ("Who?", "How loud is it?"))
    audio = processor.audio_inputs([clip])
    vectors = [
        model.get_audio_features(**audio, **processor.question_inputs(item.questions)) for item in (one, two, one)
    ]
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    torch.testing.assert_close(vectors[0], vectors[2])


@pytest.mark.parametrize("layout", ["rows", "none"])
def test_a_packed_batch_has_the_loss_of_one_by_one(recipe, built, layout):
    model, processor = built
    data = build_stage_data(recipe, 0, processor, open_clip_store(recipe, processor), layout=layout)
    batch = data.dataset[0]
    assert len(data.plan[0]) > 1
    assert len(batch["question_ids"]) == len(data.plan[0])
    counts, losses = [], []
    for number in data.plan[0]:
        item = data.examples[int(number)]
        path = item.clips[0]
        alone = model(
            input_ids=torch.tensor(item.input_ids[None], dtype=torch.long),
            labels=torch.tensor(item.labels[None], dtype=torch.long),
            **processor.audio_inputs([data.dataset.clips.load(path)]),
            **processor.question_inputs(item.questions),
        ).loss
        counts.append(item.num_supervised)
        losses.append(alone)
    counts = torch.tensor(counts, dtype=torch.float)
    torch.testing.assert_close(
        model(**batch).loss, (torch.stack(losses) * counts).sum() / counts.sum(), atol=1e-5, rtol=1e-5
    )


def test_answers_of_a_batch_are_those_of_one_by_one(recipe, built):
    model, processor = built
    requests = [
        Request((Turn(role="user", content=f"<audio>{question}"),), waveforms=(wave(0.5 + 0.3 * number, number),))
        for number, question in enumerate(("Who?", "How loud is it in there?", "Where?"))
    ]
    together = generate_answers(model, processor, requests, recipe.generation, batch_size=3)
    assert together == [generate_answers(model, processor, [item], recipe.generation)[0] for item in requests]


def test_a_conversation_reads_its_clip_anew_for_another_question(recipe, built):
    """A session's cache must not keep positions that belong to an earlier question about the same clip."""
    model, processor = built
    clip = wave(1, 0)
    session = ChatSession(model, processor, recipe.generation)
    session.add_audio(clip)
    session.ask("Who?")
    session.turns.clear()
    session._clips_before_turn.clear()
    fresh = ChatSession(model, processor, recipe.generation)
    fresh.add_audio(clip)
    assert session.ask("How loud is it?").text == fresh.ask("How loud is it?").text


def test_the_processor_passes_the_question_on(built):
    model, processor = built
    content = [{"type": "audio", "audio": wave(1, 0)}, {"type": "text", "text": "Who?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, sampling_rate=16000
    )
    assert processor.tokenizer.decode(inputs["question_ids"][0]) == "Who?"
    assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]
    with pytest.raises(DataError, match="a rendered prompt does not tell"):
        processor(text="<audio>Who?", audio=wave(1, 0), sampling_rate=16000)


def test_a_run_is_saved_loaded_and_sealed(recipe, built, tmp_path):
    model, processor = built
    save_trained(tmp_path / "run", model, processor, recipe, stage="align")
    loaded, again, _ = load_run(tmp_path / "run")
    assert again.reads_question
    assert "question_to_hidden.1.weight" in dict(loaded.multi_modal_projector.named_parameters())
    assert [name for name, holds, _ in verify_seals(tmp_path / "run") if "encoders" in name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.packing=shared_prefix", "questions cannot share them"),
        ("stages.align.objective=contrastive", r"stages\[0\].objective: contrastive: no question"),
    ],
)
def test_what_cannot_be_exact_is_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny", [*CHANGES, change])
