"""A request's answer depends on the request alone."""

from __future__ import annotations

import pytest
import torch

from lalm.data.records import Turn
from lalm.errors import AudioError, DataError, ModelError
from lalm.inference.decoding import decoding_arguments, generate_ids
from lalm.inference.generate import Request, generate_answers
from lalm.inference.prompting import embed_prompts, encode_clips
from lalm.recipe.schema import GenerationSection

GREEDY = GenerationSection(max_new_tokens=12)


def question(text="What is it?"):
    return (Turn(role="user", content=text),)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_batch_of_eight_equals_one_by_one(tiny, requests, num_beams):
    options = GenerationSection(max_new_tokens=12, num_beams=num_beams)
    together = generate_answers(*tiny, requests, options, batch_size=8)
    alone = [generate_answers(*tiny, [request], options)[0] for request in requests]
    assert together == alone
    assert len(set(together)) > 4, "the tiny model says the same to everything: the test would see nothing"


def test_order_and_progress_with_small_batches(tiny, requests):
    done = []
    answers = generate_answers(*tiny, requests, GREEDY, batch_size=3, progress=done.append)
    assert answers == generate_answers(*tiny, requests, GREEDY, batch_size=8)
    assert done == [3, 3, 2]


def test_states_at_hand_give_the_same_answers_without_the_encoder(tiny, requests, monkeypatch):
    model, processor = tiny
    expected = generate_answers(model, processor, requests, GREEDY)
    cached = [
        Request(request.turns, states=tuple(encode_clips(model, processor, request.waveforms))) for request in requests
    ]
    monkeypatch.setattr(model, "encode_audio", None)
    assert generate_answers(model, processor, cached, GREEDY) == expected


def test_states_and_waveforms_mix_in_one_batch(tiny, requests):
    model, processor = tiny
    expected = generate_answers(model, processor, requests, GREEDY)
    mixed = [
        Request(request.turns, states=tuple(encode_clips(model, processor, request.waveforms))) if i % 2 else request
        for i, request in enumerate(requests)
    ]
    assert generate_answers(model, processor, mixed, GREEDY) == expected


def test_audio_and_adapter_change_the_answer_and_the_scale_is_put_back(tiny, clip):
    model, processor = tiny
    same_length = [Request(question(), (clip(1.5, seed=seed),)) for seed in range(20, 24)]
    trained = generate_answers(model, processor, same_length, GREEDY)
    assert len(set(trained)) > 1
    model.train()
    plain = generate_answers(model, processor, same_length, GREEDY.model_copy(update={"lora_scale": 0.0}))
    assert plain != trained
    assert model.lora_scale == 1.0
    assert model.training
    assert generate_answers(model, processor, same_length, GREEDY) == trained, "dropout must be off"
    model.eval()


def test_an_error_puts_mode_and_scale_back(tiny, clip, monkeypatch):
    model, processor = tiny
    monkeypatch.setattr(model, "generate", lambda **_: 1 / 0)
    model.train()
    with pytest.raises(ZeroDivisionError):
        generate_answers(model, processor, [Request(question())], GREEDY.model_copy(update={"lora_scale": 2.0}))
    assert (model.training, model.lora_scale) == (True, 1.0)
    model.eval()


def test_repetition_penalty_and_sampling_run_with_placeholders_beyond_the_vocabulary(tiny, clip):
    options = GenerationSection(max_new_tokens=8, repetition_penalty=1.3, temperature=0.8, top_p=0.9)
    torch.manual_seed(0)
    first = generate_answers(*tiny, [Request(question(), (clip(0.8),))], options)
    torch.manual_seed(0)
    assert generate_answers(*tiny, [Request(question(), (clip(0.8),))], options) == first


def test_a_repetition_penalty_counts_what_was_said_whatever_stands_beside(tiny, recwarn):
    model, processor = tiny
    prompts = [[5, 6], [7, 8, 9, 10, 11, 12, 13, 14, 15]]

    def said(prompts: list[list[int]], penalty: float) -> list[list[int]]:
        options = GREEDY.model_copy(update={"repetition_penalty": penalty, "max_new_tokens": 12})
        arguments = decoding_arguments(options, processor.stop_token_ids)
        arguments.min_new_tokens = 12
        with torch.no_grad():
            return generate_ids(model, embed_prompts(model, prompts, []), arguments)

    together = said(prompts, 1e6)
    assert together == [*said(prompts[:1], 1e6), *said(prompts[1:], 1e6)]
    assert all(len(set(ids)) == 12 for ids in together)
    assert any(len(set(ids)) < 12 for ids in said(prompts, 1.0))
    assert not recwarn.list


def test_long_clip_is_heard_to_its_end(tiny, clip):
    long = clip(33.0)
    changed = long.copy()
    changed[-16000:] = clip(1.0, seed=5)[::-1]
    requests = [Request(question(), (wave,)) for wave in (long, changed)]
    model, processor = tiny
    states = encode_clips(model, processor, [long, changed])
    assert len(states[0]) == len(states[1])
    assert not torch.equal(states[0][-10:], states[1][-10:])
    assert processor.num_positions(len(long)) > processor.num_positions(30 * processor.sampling_rate)
    assert len(generate_answers(model, processor, requests, GREEDY)) == 2


def test_nothing_to_answer(tiny):
    assert generate_answers(*tiny, [], GREEDY) == []


def test_refusals(tiny, clip):
    with pytest.raises(DataError, match=r"must end with a user turn.*\['assistant'\]"):
        Request((Turn(role="assistant", content="x"),))
    with pytest.raises(AudioError, match="clip 1: 0 samples"):
        generate_answers(*tiny, [Request(question(), (clip(0.0),))], GREEDY)
    with pytest.raises(ModelError, match=r"answer may take 5000, but the language model has 1024"):
        generate_answers(*tiny, [Request(question())], GenerationSection(max_new_tokens=5000))
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        generate_answers(*tiny, [], GREEDY, batch_size=0)


def test_equals_transformers_own_path_from_ids_and_features(tiny, requests):
    """`model.generate(input_ids=..., input_features=...)`, which users of transformers write."""
    model, processor = tiny
    for request in requests:
        positions = [processor.num_positions(len(wave)) for wave in request.waveforms]
        ids = processor.encode_turns(request.turns, positions, add_generation_prompt=True).input_ids
        audio = processor.audio_inputs(request.waveforms) if request.waveforms else {}
        output = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=GREEDY.max_new_tokens,
            eos_token_id=processor.stop_token_ids,
            pad_token_id=processor.stop_token_ids[0],
            **audio,
        )
        text = processor.decode(output[0, len(ids) :], skip_special_tokens=True).strip()
        assert generate_answers(model, processor, [request], GREEDY) == [text]
