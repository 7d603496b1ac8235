"""Attention of packed rows by groups: equal to a dense mask, in every family that it takes; the others are refused."""

from __future__ import annotations

import copy

import pytest
import torch
from layouts import rows_of
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from lalm.errors import ModelError
from lalm.model import flash_groups as flash_groups_module
from lalm.model.attention_mask import PADDING, masks_of_layers
from lalm.model.decoder import add_lora, random_language_model
from lalm.model.flash_groups import flash_groups
from lalm.model.grouped_attention import (
    GROUPED,
    attend_in_groups,
    grouped_attention,
    grouped_inputs,
    is_grouped,
    padded_groups,
    why_not_grouped,
)
from lalm.model.packed_rows import PackedRows
from lalm.recipe.schema import LanguageModelSection, LoraSection

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "phi3": {},
    "smollm3": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4},
}
REFUSED = {
    "falcon": "transformers cannot exchange its attention",
    "bloom": "transformers cannot exchange its attention",
    "mpt": "transformers cannot exchange its attention",
    "gemma2": "it caps its scores",
}


def decoder(family: str, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, {}), **options})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    for parameter in model.parameters():  # random attention is so even that a wrong place would not show
        if parameter.ndim > 1:
            parameter.mul_(5)
    return model


LAYOUT = rows_of([[7, 3, 5, 1], [4], [1, 1]], [[0, 4, 2], [9, 6, 6]], length=30)


def last_states(model, embeds, ids, **seen):
    states = model.get_decoder()(
        inputs_embeds=embeds, position_ids=ids["position_ids"], use_cache=False, **seen
    ).last_hidden_state
    return torch.where((ids["group_ids"] != PADDING)[..., None], states, 0)


def pair(family: str, **options):
    """The same decoder with a trained-like adapter, dense and grouped."""
    dense = decoder(family, **options)
    add_lora(dense, LoraSection(rank=2, targets="attention", dropout=0.0))
    for name, parameter in dense.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    grouped = copy.deepcopy(dense)
    attend_in_groups(grouped)
    assert not is_grouped(dense)
    assert is_grouped(grouped)
    return dense, grouped


def compare(dense, grouped, ids, tolerance: float = 2e-5):
    config = dense.config
    embeds = torch.randn(*ids["group_ids"].shape, 32, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(2))
    found = []
    for model in (dense, grouped):
        inputs = embeds.clone().requires_grad_()
        seen = {"attention_mask": masks_of_layers(config, **ids, dtype=torch.float32)}
        if model is grouped:
            seen = grouped_inputs(**ids, attention_mask=None, dtype=torch.float32)
        states = last_states(model, inputs, ids, **seen)
        (states * weights).sum().backward()
        adapter = [value.grad for value in model.parameters() if value.requires_grad]
        assert adapter
        found.append((states.detach(), inputs.grad, torch.cat([value.flatten() for value in adapter])))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0.01
        torch.testing.assert_close(other, one, atol=tolerance * one.abs().max().item(), rtol=1e-4)


@pytest.fixture(params=[0, 12, 1000], ids=["each alone", "short ones together", "all together"])
def shortness(request, monkeypatch):
    """Up to which length groups are computed together."""
    monkeypatch.setattr(flash_groups_module, "SHORT", request.param)
    lengths = [len(group) for group in PackedRows.of(**LAYOUT).groups]
    assert min(lengths) <= 12 < max(lengths)


@pytest.mark.usefixtures("shortness")
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_a_dense_mask(family):
    compare(*pair(family), LAYOUT)


@pytest.mark.parametrize("family", ["mistral", "phi3", "gemma3_text"])
def test_a_sliding_window_is_counted_in_positions(family):
    compare(*pair(family, sliding_window=6), LAYOUT)


def test_dropout_goes_through_padded_groups_and_changes_the_result():
    module, rows = torch.nn.Identity(), PackedRows.of(**LAYOUT)
    states = [torch.randn(2, heads, 30, 8) for heads in (4, 2, 2)]
    plain, _ = grouped_attention(module, *states, None, scaling=0.3, packed_rows=rows)
    dropped, _ = grouped_attention(module, *states, None, scaling=0.3, packed_rows=rows, dropout=0.5)
    assert (plain - dropped).abs().max() > 0.1


@pytest.mark.usefixtures("shortness")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float64, 1e-9)])
@pytest.mark.parametrize("key_heads", [1, 3, 6])
@pytest.mark.parametrize("kernel", [flash_groups, padded_groups])
def test_both_kernels_equal_plain_formulas(kernel, key_heads, dtype, tolerance):
    """Heads that share keys, leading dimensions that are not contiguous, and no place outside the groups."""
    random = torch.Generator().manual_seed(3)
    shapes = [(2, 30, heads, 8) for heads in (6, key_heads, key_heads)]
    states = [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]
    states = [item.transpose(1, 2).detach().requires_grad_() for item in states]
    query, key, value = [item.detach().double().requires_grad_() for item in states]
    mask = masks_of_layers(AutoConfig.for_model("llama"), **LAYOUT, dtype=torch.float64)
    repeated = [item.repeat_interleave(6 // key_heads, dim=1) for item in (key, value)]
    expected = ((query @ repeated[0].transpose(2, 3) * 0.7 + mask).softmax(-1) @ repeated[1]).transpose(1, 2)
    is_real = (LAYOUT["group_ids"] != PADDING)[..., None, None]
    expected = torch.where(is_real, expected, 0)
    result = kernel(*states, PackedRows.of(**LAYOUT), 0.7)
    assert result.dtype == dtype
    assert result.masked_select(~is_real).abs().max() == 0
    torch.testing.assert_close(result.double(), expected, atol=tolerance, rtol=tolerance)
    weights = torch.randn(expected.shape, generator=random, dtype=torch.float64)
    (expected * weights).sum().backward()
    (result * weights.to(dtype)).sum().backward()
    for item, reference in zip(states, (query, key, value), strict=True):
        assert item.grad.dtype == dtype
        torch.testing.assert_close(item.grad.double(), reference.grad, atol=4 * tolerance, rtol=4 * tolerance)


def test_autocast_leaves_the_kernel_in_float32():
    rows = PackedRows.of(**LAYOUT)
    states = [torch.randn(2, heads, 30, 8, requires_grad=True) for heads in (4, 2, 2)]
    plain = flash_groups(*states, rows, 0.4)
    expected = torch.autograd.grad(plain.sum(), states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = flash_groups(*states, rows, 0.4)
        gradients = torch.autograd.grad(result.sum(), states)
    assert torch.equal(result, plain)
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))


def test_padded_rows_are_groups_too():
    """Padding at the left of one row and at the right of another, filled with noise."""
    dense, grouped = pair("llama")
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, :5], mask[1, 9:] = 0, 0
    embeds, noise = torch.randn(2, 12, 32), torch.randn(2, 12, 32)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    noisy = torch.where(mask.bool()[..., None], embeds, noise)
    plain = dense.get_decoder()(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).last_hidden_state
    seen = grouped_inputs(None, None, positions, mask, torch.float32)
    states = grouped.get_decoder()(inputs_embeds=noisy, position_ids=positions, use_cache=False, **seen)
    torch.testing.assert_close(states.last_hidden_state[mask.bool()], plain[mask.bool()], atol=2e-4, rtol=1e-4)


def test_without_groups_it_is_ordinary_attention():
    dense, grouped = pair("qwen2")
    ids = torch.randint(3, 60, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    one, other = (model.generate(ids, attention_mask=mask, **options) for model in (dense, grouped))
    assert one.tolist() == other.tolist()
    assert grouped_inputs(None, None, None, None, torch.float32) == {"attention_mask": None}


def test_recomputed_layers_see_the_groups():
    _, grouped = pair("llama")
    grouped.train()
    seen = grouped_inputs(**LAYOUT, attention_mask=None, dtype=torch.float32)
    embeds, weights = torch.randn(2, 30, 32), torch.randn(2, 30, 32)
    gradients = []
    for recompute in (False, True):
        if recompute:
            grouped.gradient_checkpointing_enable({"use_reentrant": False})
        inputs = embeds.clone().requires_grad_()
        (last_states(grouped, inputs, LAYOUT, **seen) * weights).sum().backward()
        gradients.append(inputs.grad)
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[1], gradients[0])


def test_no_tensor_is_as_large_as_a_row_squared():
    """Eight groups of 40 in a row of 320: the largest tensor that any operation returns is linear in the row."""

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            results = func(*args, **(kwargs or {}))
            for item in results if isinstance(results, (tuple, list)) else (results,):
                if isinstance(item, torch.Tensor):
                    self.numel = max(self.numel, item.numel())
            return results

    _, grouped = pair("llama")
    ids = rows_of([[20, 10, 10]] * 8)
    inputs = torch.randn(1, 320, 32, requires_grad=True)
    with Largest() as largest:
        seen = grouped_inputs(**ids, attention_mask=None, dtype=torch.float32)
        last_states(grouped, inputs, ids, **seen).sum().backward()
    assert largest.numel == 8 * 2 * 40**2  # masks of the groups, for each head of keys; a row's would be 320 ** 2


@pytest.mark.parametrize("family", REFUSED)
def test_other_families_are_refused_by_name(family):
    model = decoder(family)
    assert REFUSED[family] in why_not_grouped(model)
    with pytest.raises(ModelError, match=f"attention: grouped is not for '{family}': {REFUSED[family]}") as error:
        attend_in_groups(model)
    assert "Use auto, eager or sdpa" in str(error.value)
    assert model.config._attn_implementation == "eager"


def test_layers_that_are_no_attention_are_refused():
    model = decoder("llama")
    model.config.layer_types = ["linear_attention", "full_attention"]
    assert why_not_grouped(model) == "its layers of linear_attention are no attention"


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_what_it_does_not_compute_is_refused(name):
    with pytest.raises(ModelError, match=f"grouped does not compute {name}"):
        grouped_attention(torch.nn.Identity(), *([torch.zeros(1, 1, 1, 1)] * 3), None, **{name: 1.0})


@pytest.mark.parametrize(("asked", "family", "expected"), [
    ("auto", "llama", GROUPED), ("grouped", "llama", GROUPED), ("eager", "llama", "eager"), ("sdpa", "llama", "sdpa"),
    ("auto", "bloom", "eager"), ("auto", "gemma2", "eager"),
])  # fmt: skip
def test_a_recipe_chooses(asked, family, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    section = LanguageModelSection(base="random", attention=asked, random_family=family)
    assert random_language_model(section).config._attn_implementation == expected


def test_a_recipe_that_insists_is_told_why_not():
    with pytest.raises(ModelError, match="grouped is not for 'gemma2': it caps its scores"):
        random_language_model(LanguageModelSection(base="random", attention="grouped", random_family="gemma2"))
