"""Compiled decoder layers: the eager layers' losses and gradients up to rounding, in training alone."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lalm.errors import ModelError
from lalm.model import compiled_layers
from lalm.model.attention_mask import PADDING
from lalm.model.compiled_layers import (
    FAMILIES,
    compile_layers,
    is_tested_family,
    leave_layers,
    why_not_compiled,
)
from lalm.model.decoder import add_lora
from lalm.model.grouped_attention import attend_in_groups, grouped_inputs
from lalm.model.lean_norm import lean_norms
from lalm.recipe.schema import LoraSection

WIDTH = 32


@pytest.fixture(autouse=True)
def graphs():
    """`graphs()`: how many graphs were compiled in the test, each of which begins with none."""
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def decoder(family: str = "llama", dtype: torch.dtype = torch.float32, **options):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
        "pad_token_id": 0,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **{**sizes, **options})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).requires_grad_(False)
    attend_in_groups(model)
    lean_norms(model)
    add_lora(model, LoraSection(rank=2, targets="qv", dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.3)
    return model


def passed(model, length: int, *, inputs_train: bool = True):
    """States of two groups of packed rows, gradients of the adapter, and of the inputs if they have any."""
    model.zero_grad(set_to_none=True)
    random = torch.Generator().manual_seed(length)
    dtype = model.get_input_embeddings().weight.dtype
    embeds = torch.randn(1, length, WIDTH, generator=random).to(dtype).requires_grad_(inputs_train)
    places = torch.arange(length)[None]
    groups = torch.where(places < length // 3, 0, 1)
    groups[:, -1] = PADDING
    seen = grouped_inputs(groups, torch.zeros_like(groups), places, None, dtype)
    states = model.get_decoder()(inputs_embeds=embeds, position_ids=places, use_cache=False, **seen).last_hidden_state
    weights = torch.randn(1, length - 1, WIDTH, generator=random)
    (states[:, :-1].float() * weights).sum().backward()
    adapter = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
    pulls = [embeds.grad] if inputs_train else []
    return states[:, :-1].detach().float(), torch.cat(adapter), *pulls


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / one.float().norm())


@pytest.mark.slow
@pytest.mark.usefixtures("torch_compiles")
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_the_eager_layers(family: str, graphs):
    eager = decoder(family).train()
    compiled = copy.deepcopy(eager)
    compile_layers(compiled)
    compile_layers(compiled)
    for length, inputs_train in ((17, True), (30, True), (23, False))[: 3 if family == "llama" else 2]:
        found = (passed(model, length, inputs_train=inputs_train) for model in (eager, compiled))
        for one, other in zip(*found, strict=True):
            assert far(one, other) < 1e-5, (length, inputs_train)
    # Before attention, after it, and the functions between; once more for a first layer whose input has no gradient.
    assert 4 <= (compiled_graphs := graphs()) <= 12
    for model in (eager, compiled):  # in eval mode they are the eager layers to the bit
        model.eval()
    for one, other in zip(passed(eager, 17), passed(compiled, 17), strict=True):
        assert torch.equal(one, other)
    ids = torch.arange(1, 6)[None]
    assert torch.equal(
        eager.generate(ids, max_new_tokens=4, do_sample=False),
        compiled.generate(ids, max_new_tokens=4, do_sample=False),
    )
    assert graphs() == compiled_graphs


@pytest.mark.slow
@pytest.mark.usefixtures("torch_compiles")
def test_in_bfloat16_they_are_as_near_to_exact_ones(graphs):
    exact, eager = decoder().train(), decoder(dtype=torch.bfloat16).train()
    exact.load_state_dict(eager.state_dict())
    compiled = copy.deepcopy(eager)
    compile_layers(compiled)
    for truth, one, other in zip(*(passed(model, 30) for model in (exact, eager, compiled)), strict=True):
        assert far(truth, other) < 1.2 * far(truth, one) + 1e-3
        assert other.dtype == one.dtype
    assert graphs() > 0


def test_they_can_be_left_again(monkeypatch, graphs):
    monkeypatch.setattr(compiled_layers, "why_no_compiler", lambda: None)
    model = decoder().train()
    eager = passed(model, 17)
    leave_layers(model)
    compile_layers(model)
    leave_layers(model)
    for one, other in zip(eager, passed(model, 17), strict=True):
        assert torch.equal(one, other)
    assert graphs() == 0


def test_what_keeps_layers_from_it_is_said(monkeypatch):
    monkeypatch.setattr(compiled_layers, "why_no_compiler", lambda: None)
    model = decoder()
    assert why_not_compiled(model) is None
    assert is_tested_family(model)
    model.set_attn_implementation("eager")
    assert why_not_compiled(model) == "attention is not grouped"
    with pytest.raises(ModelError, match="compile: layers: attention is not grouped"):
        compile_layers(model)
    assert not is_tested_family(decoder("phi3"))


def test_a_machine_that_cannot_compile_says_why(monkeypatch):
    def fails(function):
        raise RuntimeError("\nno g++ here\nat length")

    monkeypatch.setattr(torch, "compile", fails)
    compiled_layers.why_no_compiler.cache_clear()
    try:
        assert why_not_compiled(decoder()) == "torch cannot compile here (RuntimeError: no g++ here)"
    finally:
        compiled_layers.why_no_compiler.cache_clear()
