"""The adapter in 16 bits: PEFT's result and gradients within rounding; PEFT's own way for all that it does not do."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear

from lalm.model.decoder import add_lora, lora_layers, random_language_model
from lalm.model.narrow_lora import NarrowLora
from lalm.recipe.schema import LanguageModelSection, LoraSection


def pair(dtype: torch.dtype, **options):
    """The same adapted decoder, with PEFT's layers and with ours."""
    torch.manual_seed(0)
    model = random_language_model(LanguageModelSection(base="random", attention="eager")).to(dtype)
    model.eval().requires_grad_(False)
    add_lora(model, LoraSection(rank=4, targets="attention", **{"dropout": 0.0, **options}))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    theirs = copy.deepcopy(model)
    for module in theirs.modules():
        if type(module) is NarrowLora:
            module.__class__ = LoraLinear
    assert all(type(layer) is NarrowLora for layer in lora_layers(model))
    return theirs, model


def outcome(model, dtype: torch.dtype):
    torch.manual_seed(1)
    embeds = torch.randn(2, 9, 32).to(dtype).requires_grad_()
    states = model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state
    (states.float() * torch.randn(states.shape)).sum().backward()
    adapter = torch.cat([value.grad.flatten() for value in model.parameters() if value.requires_grad])
    assert adapter.dtype == torch.float32
    return states.detach().float(), embeds.grad.float(), adapter


def test_within_rounding_of_pefts():
    theirs, ours = pair(torch.bfloat16)
    wide, _ = pair(torch.float32)
    for exact, one, other in zip(
        outcome(wide, torch.float32), outcome(theirs, torch.bfloat16), outcome(ours, torch.bfloat16), strict=True
    ):
        assert (other - exact).norm() < 1.5 * (one - exact).norm()
        assert (other - one).norm() < 0.05 * one.norm()


def test_in_float32_it_is_pefts_to_the_bit():
    theirs, ours = pair(torch.float32)
    for one, other in zip(outcome(theirs, torch.float32), outcome(ours, torch.float32), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("what", ["disabled", "merged", "dropout", "dora", "dealt out"])
def test_everything_else_is_pefts_to_the_bit(what):
    theirs, ours = pair(torch.bfloat16, **{"dropout": {"dropout": 0.5}, "dora": {"variant": "dora"}}.get(what, {}))
    found = []
    for model in (theirs, ours):
        for layer in lora_layers(model):
            if what == "disabled":
                layer.enable_adapters(False)
            elif what == "merged":
                layer.merge()
            elif what == "dealt out":
                layer.lora_A["default"].weight.ds_id = 1
        model.train(what == "dropout")
        torch.manual_seed(2)
        with torch.no_grad():
            found.append(model(torch.arange(8)[None], use_cache=False).logits)
    assert torch.equal(*found)


def test_the_scale_of_the_adapter_counts():
    _, ours = pair(torch.bfloat16)
    whole = ours(torch.arange(8)[None], use_cache=False).logits
    for layer in lora_layers(ours):
        layer.scaling["default"] = 0.0
    without = ours(torch.arange(8)[None], use_cache=False).logits
    for layer in lora_layers(ours):
        layer.enable_adapters(False)
    assert not torch.equal(whole, without)
    assert torch.equal(without, ours(torch.arange(8)[None], use_cache=False).logits)
