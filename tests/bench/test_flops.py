"""The operation counts against those that torch counts while the modules run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lalm.bench.flops import (
    beats_flops,
    decoder_cost,
    encoder_flops,
    head_cost,
    linear_cost,
    qformer_cost,
    whisper_flops,
)
from lalm.bench.sizes import TINY, find_sizes
from lalm.encoders import build_encoder
from lalm.errors import RecipeError
from lalm.model.decoder import add_lora, random_language_model
from lalm.projectors import build_projector
from lalm.recipe.encoders import BeatsSection, WhisperSection
from lalm.recipe.projectors import LinearSection, QFormerSection
from lalm.recipe.schema import LanguageModelSection, LoraSection

SMALL_TERMS = 0.01
"""Rotary angles are a product too, and are left out of the counts."""


def counted(forward: Callable[[], Tensor]) -> tuple[int, int]:
    """Operations of a forward pass and of its backward, as torch counts them. Fused attention is taken apart."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = forward()
    with FlopCounterMode(display=False) as backward:
        if output.requires_grad:
            output.sum().backward()
    return counter.get_total_flops(), backward.get_total_flops()


def test_whisper():
    encoder = build_encoder(WhisperSection(base="random", padding="real", random_sizes=TINY.whisper))
    features = torch.randn(1, 80, 60)
    with torch.no_grad():
        forward, _ = counted(lambda: encoder(features, torch.tensor([60])).states)
    assert whisper_flops(TINY.whisper, 60) == forward


def test_beats():
    encoder = build_encoder(BeatsSection(base="random", random_sizes=TINY.beats))
    with torch.no_grad():
        forward, _ = counted(lambda: encoder(torch.randn(1, 128, 64), torch.tensor([64])).states)
    assert beats_flops(TINY.beats, 32) == forward


def test_qformer():
    section = QFormerSection(window_steps=15, queries=3, dropout=0.0, **TINY.qformer)
    projector = build_projector(section, 20, 32)
    states = torch.randn(2, 30, 20)
    forward, backward = counted(lambda: projector(states, torch.tensor([30, 30]))[0])
    cost = qformer_cost(TINY.qformer, num_windows=4, window_steps=15, queries=3, encoder_width=20, decoder_width=32)
    assert cost.forward == forward
    assert cost.backward == pytest.approx(backward, rel=0.05)


def test_linear():
    projector = build_projector(LinearSection(pool_steps=2), 20, 32)
    forward, backward = counted(lambda: projector(torch.randn(1, 30, 20), torch.tensor([30]))[0])
    cost = linear_cost(num_positions=15, encoder_width=20, decoder_width=32)
    assert (cost.forward, cost.backward) == (forward, backward)


def test_decoder_with_lora_and_head():
    section = LanguageModelSection(base="random", attention="eager", random_sizes=TINY.language_model)
    model = random_language_model(section).requires_grad_(False)
    add_lora(model, LoraSection(rank=2, dropout=0.0))
    embeds = torch.randn(1, 24, 32, requires_grad=True)
    forward, backward = counted(lambda: model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state)
    cost = decoder_cost(TINY.language_model, num_tokens=24, num_pairs=24**2, lora_rank=2)
    assert cost.forward == pytest.approx(forward, rel=SMALL_TERMS)
    assert cost.backward == pytest.approx(backward, rel=SMALL_TERMS)

    head: nn.Module = model.get_output_embeddings()
    states = torch.randn(7, 32, requires_grad=True)
    counts = counted(lambda: head(states))
    cost = head_cost(TINY.language_model, 7)
    assert (cost.forward, cost.backward) == counts


def test_a_clip_costs_its_real_length():
    single = encoder_flops(TINY, 3.0, second_encoder=False)
    assert single == whisper_flops(TINY.whisper, 300)
    # 3 s are 298 frames of Kaldi's, of which 18 whole patches are made in each of 8 bands.
    assert encoder_flops(TINY, 3.0, second_encoder=True) == single + beats_flops(TINY.beats, 18 * 8)


def test_unknown_size_is_refused():
    with pytest.raises(RecipeError, match=r"--size huge: unknown\. Accepted: tiny, smol, 7b"):
        find_sizes("huge")
