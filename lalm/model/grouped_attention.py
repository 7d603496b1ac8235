"""Attention of packed rows group by group: no position of another group is computed, and no mask of a whole row exists.

Registered with transformers as an attention of its own name, so that everything else of a decoder runs on the flat rows
as it is. The groups travel through the decoder as the keyword argument `packed_rows`, found once for each batch.
Four ways, all exact:

    tiled   (CPU with matrix tiles, bfloat16, compiled when it pays) a kernel of ours, see `lalm.model.tiled_groups`
    flash   (CPU) slices of the rows through the flash kernel, see `lalm.model.flash_groups`
    varlen  (GPU, 16 bits) segments of any length through FlashAttention, see `lalm.model.varlen_groups`
    padded  (any device, dropout, sliding windows) groups of similar length gathered and padded, one small mask each

Without `packed_rows` (generation, scoring) it is transformers' own `sdpa`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lalm.errors import ModelError
from lalm.model.attention_mask import MASKED_LAYERS, PADDING
from lalm.model.flash_groups import flash_groups
from lalm.model.packed_rows import PackedRows
from lalm.model.tiled_groups import takes_tiles, tiled_groups
from lalm.model.varlen_groups import OLDEST_CAPABILITY, takes_varlen, varlen_groups

GROUPED, TILED = "lalm_grouped", "lalm_grouped_in_tiles"
"""Its names among transformers' attentions, without and with the compiled kernel; a recipe says `grouped`."""
TILE_ROWS = 64
"""Multiples of it are the lengths of rows that go through the kernel."""
UNKNOWN_INPUTS = ("softcap", "s_aux", "position_bias")
"""What some families put into attention and this one does not compute."""


def attend_in_groups(model: PreTrainedModel) -> None:
    """Gives a decoder this attention, in place.

    Raises:
        ModelError: if it would not be exact, see `why_not_grouped`.
    """
    if (reason := why_not_grouped(model)) is not None:
        raise ModelError(
            f"language_model.attention: grouped is not for '{model.config.get_text_config().model_type}': {reason}. "
            "Use auto, eager or sdpa."
        )
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    model.set_attn_implementation(GROUPED)


def attend_in_tiles(model: PreTrainedModel, *, wanted: bool = True) -> None:
    """Gives a decoder with this attention the compiled kernel, or takes it away, in place. What the kernel does not
    compute (other types, other widths of heads) goes the ways that it went."""
    AttentionInterface.register(TILED, partial(grouped_attention, in_tiles=True))
    AttentionMaskInterface.register(TILED, sdpa_mask)
    model.set_attn_implementation(TILED if wanted else GROUPED)


def why_not_grouped(model: PreTrainedModel) -> str | None:
    """What keeps a family from this attention; None where nothing does."""
    config = model.config.get_text_config()
    types = set(getattr(config, "layer_types", None) or ())
    if model.config.is_encoder_decoder:
        return "it has an encoder"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "it caps its scores (attn_logit_softcapping)"
    if not (model.is_backend_compatible() and model._supports_sdpa and model._can_set_attn_implementation()):
        return "transformers cannot exchange its attention"
    if types - MASKED_LAYERS:
        return f"its layers of {', '.join(sorted(types - MASKED_LAYERS))} are no attention"
    if getattr(config, "sliding_window", None) is not None and not model._supports_flash_attn:
        return "it keeps its sliding window to itself"  # flash attention needs it as an argument, as this one does
    return None


def is_fastest_here() -> bool:
    """Whether this attention is what a machine should take where it can: a CPU, or a GPU that has the kernel for it."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= OLDEST_CAPABILITY


def is_grouped(model: PreTrainedModel) -> bool:
    """Whether `attend_in_groups` was called on the model."""
    return model.config.get_text_config()._attn_implementation in (GROUPED, TILED)


def is_in_tiles(model: PreTrainedModel) -> bool:
    """Whether `attend_in_tiles` was called on the model."""
    return model.config.get_text_config()._attn_implementation == TILED


def in_whole_tiles(
    embeds: Tensor, position_ids: Tensor | None, group_ids: Tensor, branch_ids: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Rows `[R, L, D]` and their ids with padding up to whole tiles: products of few different sizes.

    oneDNN writes a program for each size of a product, two milliseconds each: a twentieth of a step whose number of
    positions is new.
    """
    missing = -embeds.shape[1] % TILE_ROWS
    ids = ((position_ids, 0), (group_ids, PADDING), (branch_ids, PADDING))
    padded = (None if item is None else nn.functional.pad(item, (0, missing), value=value) for item, value in ids)
    return nn.functional.pad(embeds, (0, 0, 0, missing)), *padded


def grouped_inputs(
    group_ids: Tensor | None,
    branch_ids: Tensor | None,
    position_ids: Tensor | None,
    attention_mask: Tensor | None,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """What a decoder with this attention takes in the place of `attention_mask`.

    Ids `[R, L]` of packed rows, or the `[R, L]` mask of padded ones, each of which is a group. With neither, nothing
    changes. The mask that is handed on is never read: transformers makes none if it gets one with four dimensions.
    Its NaN would show in the loss of a family that loses `packed_rows` on the way.
    """
    if group_ids is None:
        if attention_mask is None or attention_mask.ndim != 2:
            return {"attention_mask": attention_mask}
        group_ids, branch_ids = torch.where(attention_mask.bool(), 0, PADDING), None
    unread = torch.full((1, 1, 1, 1), torch.nan, dtype=dtype, device=group_ids.device)
    return {"attention_mask": unread, "packed_rows": PackedRows.of(group_ids, branch_ids, position_ids)}


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed_rows: PackedRows | None = None,
    in_tiles: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls an attention: query `[R, H, L, d]`, key and value `[R, K, L, d]` -> `[R, L, H, d]`.

    Raises:
        ModelError: if the family asks for more than scores, masks and dropout.
    """
    if unknown := [name for name in UNKNOWN_INPUTS if kwargs.get(name) is not None]:
        raise ModelError(f"language_model.attention: grouped does not compute {', '.join(unknown)}. Use eager.")
    if packed_rows is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window is not None and sliding_window < packed_rows.reach else None
    is_plain = window is None and dropout == 0.0 and query.shape[-1] == value.shape[-1]
    if query.device.type == "cpu" and is_plain:
        if in_tiles and takes_tiles(query, key):
            layout = packed_rows.segments, packed_rows.first_segments
            return tiled_groups(query, key, value, *layout, scaling), None
        return flash_groups(query, key, value, packed_rows, scaling), None
    if is_plain and takes_varlen(query, value):
        return varlen_groups(query, key, value, packed_rows, scaling), None
    return padded_groups(query, key, value, packed_rows, scaling, dropout=dropout, window=window), None


def padded_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: PackedRows,
    scaling: float,
    *,
    dropout: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """`flash_groups` for any device, with dropout and windows: buckets of groups through masked `sdpa`.

    The queries that share a key head follow one another as rows, so that keys and values are not repeated.
    """
    num_rows, num_heads, length, _ = query.shape
    num_shared = num_heads // key.shape[1]
    flat = [item.transpose(1, 2).flatten(0, 1) for item in (query, key, value)]
    results, places = [], []
    for bucket in rows.buckets(window):
        size = bucket.index.shape
        q, k, v = (item.index_select(0, bucket.index.flatten()).unflatten(0, size).transpose(1, 2) for item in flat)
        q = q.unflatten(1, (-1, num_shared)).flatten(2, 3)
        mask = bucket.mask[:, :, None].expand(-1, -1, num_shared, -1, -1).flatten(2, 3)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
        out = out.unflatten(2, (num_shared, size[1])).flatten(1, 2).transpose(1, 2)
        results.append(out[bucket.is_real])
        places.append(bucket.index[bucket.is_real])
    empty = results[0].new_zeros(num_rows * length, num_heads, value.shape[-1])
    return empty.index_copy(0, torch.cat(places), torch.cat(results)).unflatten(0, (num_rows, length))
