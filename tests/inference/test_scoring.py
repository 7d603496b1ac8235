"""Scores equal those of the model's own forward pass over each whole conversation."""

from __future__ import annotations

import math

import pytest
import torch

from lalm.data.records import Turn
from lalm.errors import DataError
from lalm.inference.prompting import Request, encode_clips, positions_of_clips
from lalm.inference.scoring import OptionScore, score_options

OPTIONS = ["a dog", "a very small dog that barks", "no", "x"]


@torch.no_grad()
def reference(model, processor, request, option):
    """The same number from one unbatched pass without a cache, over ids with the clips as features."""
    whole = processor.encode_turns(
        (*request.turns, Turn(role="assistant", content=option)), positions_of_clips(model, processor, request)
    )
    ids = torch.tensor([list(whole.input_ids)])
    audio = processor.audio_inputs(list(request.waveforms)) if request.waveforms else {}
    log_probs = model(input_ids=ids, use_cache=False, **audio).logits[0, :-1].log_softmax(-1)
    prompt = processor.encode_turns(
        request.turns, positions_of_clips(model, processor, request), add_generation_prompt=True
    ).input_ids
    closing = [i for i, label in enumerate(whole.labels) if label != -100 and i >= len(prompt)]
    values = [log_probs[i - 1, whole.labels[i]].item() for i in closing]
    return OptionScore(sum(values), len(values))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_equal_whole_forward_passes(tiny, requests, batch_size):
    for request in requests[3:]:
        scores = score_options(*tiny, request, OPTIONS, batch_size=batch_size)
        for option, score in zip(OPTIONS, scores, strict=True):
            expected = reference(*tiny, request, option)
            assert score.num_tokens == expected.num_tokens == len(option) + 1, "bytes and the end token"
            assert score.total == pytest.approx(expected.total, abs=2e-3)
            assert score.mean == pytest.approx(expected.total / expected.num_tokens, abs=1e-3)


def test_scores_are_the_negative_loss_of_training(tiny, requests):
    model, processor = tiny
    request = requests[0]
    whole = processor.encode_turns(
        (*request.turns, Turn(role="assistant", content="a dog")), positions_of_clips(model, processor, request)
    )
    with torch.no_grad():
        loss = model(
            input_ids=torch.tensor([list(whole.input_ids)]),
            labels=torch.tensor([list(whole.labels)]),
            **processor.audio_inputs(list(request.waveforms)),
        ).loss
    assert score_options(model, processor, request, ["a dog"])[0].mean == pytest.approx(-loss.item(), abs=1e-3)


def test_cached_states_give_the_same_scores_and_adapter_scale_counts(tiny, requests):
    model, processor = tiny
    request = requests[5]
    cached = Request(request.turns, states=tuple(encode_clips(model, processor, request.waveforms)))
    scores = score_options(model, processor, request, OPTIONS)
    assert score_options(model, processor, cached, OPTIONS) == scores
    assert score_options(model, processor, request, OPTIONS, lora_scale=0.0)[0].total != scores[0].total
    assert model.lora_scale == 1.0


def test_one_token_options_are_a_distribution(tiny, requests):
    """Over all one-token continuations, the first-token probabilities can never exceed one."""
    scores = score_options(*tiny, requests[0], list("abcdefgh"))
    assert sum(math.exp(score.total) for score in scores) <= 1


@pytest.mark.parametrize("options", [[], ["a dog", " "]])
def test_refuses_no_options_and_empty_ones(tiny, requests, options):
    with pytest.raises(DataError, match="options to score must be"):
        score_options(*tiny, requests[0], options)
