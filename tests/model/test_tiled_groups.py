"""The compiled attention of packed rows: plain formulas up to the rounding of its type, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from layouts import rows_of
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lalm.model.attention_mask import PADDING, mask_from_segments
from lalm.model.decoder import add_lora
from lalm.model.flash_groups import flash_groups
from lalm.model.grouped_attention import attend_in_groups, attend_in_tiles, grouped_inputs, is_grouped
from lalm.model.packed_rows import PackedRows
from lalm.model.tiled_groups import has_tiles, takes_tiles, tiled_groups, why_no_kernel
from lalm.recipe.schema import LoraSection


@pytest.fixture(scope="module")
def tiles():
    """Skips where the processor has none, or no compiler is there."""
    if not torch.cpu._is_amx_tile_supported():
        pytest.skip("no matrix tiles (AMX) here")
    if (reason := why_no_kernel()) is not None:
        pytest.skip(reason)


LAYOUTS = {
    "long and short groups": [[[84, 140, 33, 64, 65], [70, 1, 2, 128]]],
    "no prefix, no branch, padding": [[[0, 40, 90], [131]], [[7, 3, 5, 1], [1], [1, 1], [64]]],
    "blocks that are just full": [[[64, 64, 32, 16], [128, 32]]],
}


def far(one: Tensor, other: Tensor) -> float:
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / one.norm())


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(
    ("heads", "key_heads", "width"), [(9, 3, 64), (4, 4, 32), (14, 2, 128), (8, 1, 96), (4, 2, 64)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_and_gradients_are_those_of_plain_formulas(layout, heads, key_heads, width):
    """Heads that share keys or do not, strides of a projection's output, and no place outside the groups."""
    ids = rows_of(*LAYOUTS[layout])
    num_rows, length = ids["group_ids"].shape
    random = torch.Generator().manual_seed(4)
    given = [torch.randn(num_rows, length, count, width, generator=random).bfloat16().transpose(1, 2).requires_grad_()
             for count in (heads, key_heads, key_heads)]  # fmt: skip
    exact = [item.detach().double().requires_grad_() for item in given]
    key, value = (item.repeat_interleave(heads // key_heads, dim=1) for item in exact[1:])
    mask = mask_from_segments(ids["group_ids"], ids["branch_ids"], torch.float64)
    is_real = (ids["group_ids"] != PADDING)[..., None, None]
    scaling = 0.9 * width**-0.5
    expected = ((exact[0] @ key.mT * scaling + mask).softmax(-1) @ value).transpose(1, 2) * is_real
    rows = PackedRows.of(**ids)
    assert takes_tiles(*given[:2])
    result = tiled_groups(*given, rows.segments, rows.first_segments, scaling)
    assert result.dtype == torch.bfloat16
    assert not result.masked_select(~is_real).any()
    pull = torch.randn(expected.shape, generator=random, dtype=torch.float64).bfloat16()
    found = [result, *torch.autograd.grad(result, given, pull)]
    wanted = [expected, *torch.autograd.grad(expected, exact, pull.double())]
    for one, other in zip(wanted, found, strict=True):
        assert one.shape == other.shape
        assert far(one, other) < 5e-3
    # What the same in float32 comes to is not nearer by more than its own rounding.
    assert far(expected, result) < 1.5 * far(expected, flash_groups(*given, rows, scaling))


@pytest.mark.usefixtures("tiles")
def test_scores_that_are_far_apart_stay_finite():
    """One key takes all the weight, from the first block or from the last, and the others next to none."""
    ids = rows_of([[200, 100]])
    rows = PackedRows.of(**ids)
    query = torch.ones(1, 1, 300, 32, dtype=torch.bfloat16)
    for place in (3, 199):
        key = torch.zeros(1, 1, 300, 32, dtype=torch.bfloat16)
        key[:, :, place] = 40.0
        value = torch.randn(1, 1, 300, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
        states = [item.clone().requires_grad_() for item in (query, -key, value)]
        for sign in (1, -1):
            given = [states[0], states[1] * sign, states[2]]
            result = tiled_groups(*given, rows.segments, rows.first_segments, 1.0)
            gradients = torch.autograd.grad(result.sum(), states)
            assert all(item.isfinite().all() for item in (result, *gradients))
        assert torch.equal(result[0, 200:, 0], value[0, :, place].expand(100, -1))


@pytest.mark.usefixtures("tiles")
def test_the_compiler_is_told_the_shapes_that_come_out():
    rows = PackedRows.of(**rows_of(*LAYOUTS["long and short groups"]))
    heads = [
        torch.randn(1, rows.row_length, count, 32).bfloat16().transpose(1, 2).requires_grad_() for count in (4, 2, 2)
    ]
    torch.library.opcheck(torch.ops.lalm.attend_in_tiles.default, (*heads, rows.segments, rows.first_segments, 0.2))


def decoder(dtype: torch.dtype = torch.bfloat16, **options):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "pad_token_id": 0,
    }  # fmt: skip
    config = AutoConfig.for_model("llama", **{**sizes, **options})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).requires_grad_(False)
    attend_in_groups(model)
    add_lora(model, LoraSection(rank=2, targets="qv", dropout=0.0))
    return model.train()


def passed(model, ids: dict[str, Tensor]) -> list[Tensor]:
    embeds = torch.randn(*ids["group_ids"].shape, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    embeds.requires_grad_()
    seen = grouped_inputs(**ids, attention_mask=None, dtype=embeds.dtype)
    states = model.get_decoder()(
        inputs_embeds=embeds, position_ids=ids["position_ids"], use_cache=False, **seen
    ).last_hidden_state
    states = states[ids["group_ids"] != PADDING]
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    return [states.detach(), *torch.autograd.grad((states.float() * weights).sum(), embeds)]


@pytest.mark.usefixtures("tiles")
def test_a_decoder_takes_it_and_leaves_it_again():
    ids = rows_of(*LAYOUTS["no prefix, no branch, padding"])
    model = decoder()
    assert has_tiles(model)
    plain = passed(model, ids)
    attend_in_tiles(model)
    assert is_grouped(model)
    in_tiles = passed(model, ids)
    for one, other in zip(plain, in_tiles, strict=True):
        assert 0 < far(one, other) < 2e-2
    attend_in_tiles(model, wanted=False)
    for one, other in zip(plain, passed(model, ids), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("tiles", "torch_compiles")
def test_a_compiled_layer_has_it_in_one_piece():
    from lalm.model.compiled_layers import compile_layers

    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    eager = decoder()
    attend_in_tiles(eager)
    compiled = copy.deepcopy(eager)
    compile_layers(compiled)
    for layout in LAYOUTS.values():
        for one, other in zip(*(passed(model, rows_of(*layout)) for model in (eager, compiled)), strict=True):
            assert far(one, other) < 2e-2
    assert not torch._dynamo.utils.counters["graph_break"]


def test_decoders_that_it_is_not_for(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_tiles(decoder())
    assert not has_tiles(decoder(torch.float32))
    assert not has_tiles(decoder(head_dim=24))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_tiles(decoder())
