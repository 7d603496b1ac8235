"""Attention inside groups on a GPU, without any mask: FlashAttention over segments of any length (arXiv 2307.08691).

Two calls a layer, however many groups there are. In the first, every prefix and every branch is a segment that attends
to itself causally. In the second, the branches of a group attend to its prefix as a whole, and prefixes to nothing: so
queries, results and their gradients stay where they are. A position's two results are put together by their sums of
exponentials, and each backward call is given the result and the sums of the whole, for which FlashAttention's formula
holds piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from lalm.model.packed_rows import PackedRows

_forward = torch.ops.aten._flash_attention_forward
_backward = torch.ops.aten._flash_attention_backward

DTYPES = (torch.bfloat16, torch.float16)
LARGEST_HEAD, HEAD_MULTIPLE = 256, 8
OLDEST_CAPABILITY = (8, 0)
"""Ampere: what the kernel is made for."""


def takes_varlen(query: Tensor, value: Tensor) -> bool:
    """Whether the kernel is made for such heads `[R, H, L, d]` on their device."""
    width = query.shape[-1]
    return (
        query.device.type == "cuda"
        and query.dtype in DTYPES
        and width == value.shape[-1]
        and width <= LARGEST_HEAD
        and width % HEAD_MULTIPLE == 0
        and torch.cuda.get_device_capability(query.device) >= OLDEST_CAPABILITY
    )


def varlen_groups(query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scaling: float) -> Tensor:
    """query `[R, H, L, d]`, key and value `[R, K, L, d]` with K dividing H -> `[R, L, H, d]`, zero at padding."""
    segments = rows.kept("varlen", lambda: Segments.of(rows))
    flat = [item.transpose(1, 2).flatten(0, 1) for item in (query, key, value)]
    if segments.real is not None:
        flat = [item.index_select(0, segments.real) for item in flat]
    out = _VarlenGroups.apply(*flat, segments, scaling)
    if segments.real is not None:
        num_rows, num_heads, length, width = query.shape
        out = out.new_zeros(num_rows * length, num_heads, width).index_copy(0, segments.real, out)
    return out.unflatten(0, (query.shape[0], query.shape[2]))


@dataclass(frozen=True)
class Spans:
    """Where segments begin and end among the places that are handed over, as the kernel takes it."""

    edges: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> Spans:
        edges = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(edges.to(device), max(lengths, default=0))


@dataclass(frozen=True)
class Segments:
    """What the two calls read, as places among the `n` that are no padding."""

    real: Tensor | None
    """`[n]`, their places in the flattened rows; None where nothing is padding."""
    alone: Spans
    """Every prefix and every branch."""
    prefixes: Tensor
    """Places of the prefixes that branches attend to, group by group."""
    asking: Spans
    """The same groups' branches, and what lies between them."""
    asked: Spans
    """What these pieces attend to among `prefixes`: the group's own, and nothing."""

    @classmethod
    def of(cls, rows: PackedRows) -> Segments:
        real, alone, prefixes, asking, asked = [], [], [], [], []
        seen = between = 0
        for group in rows.groups:
            start = group.row * rows.row_length + group.start
            real.append(torch.arange(start, start + len(group)))
            prefix = group.prefix_end - group.start
            alone += [prefix] * bool(prefix) + [end - first for first, end in group.branches]
            if prefix and group.branches:
                prefixes.append(torch.arange(seen, seen + prefix))
                asking += [between + prefix, len(group) - prefix]
                asked += [0, prefix]
                between = 0
            else:
                between += len(group)
            seen += len(group)
        if between:
            asking.append(between)
            asked.append(0)
        device = rows.device
        has_padding = seen < rows.group_ids.numel()
        return cls(
            real=torch.cat(real).to(device) if has_padding else None,
            alone=Spans.of(alone, device),
            prefixes=torch.cat(prefixes).to(device) if prefixes else torch.zeros(0, dtype=torch.long, device=device),
            asking=Spans.of(asking, device),
            asked=Spans.of(asked, device),
        )


class _VarlenGroups(torch.autograd.Function):
    """query `[n, H, d]`, key and value `[n, K, d]` -> `[n, H, d]`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float) -> Tensor:
        query, key, value = (item.contiguous() for item in (query, key, value))
        out, sums, *state = _attend(query, key, value, segments.alone, segments.alone, True, scaling)
        if len(segments.prefixes):
            keys, values = (item.index_select(0, segments.prefixes) for item in (key, value))
            on_prefix, prefix_sums, *_ = _attend(query, keys, values, segments.asking, segments.asked, False, scaling)
            # Of what attends to nothing, the kernel says that the sum is infinite.
            prefix_sums = prefix_sums.masked_fill(prefix_sums == torch.inf, -torch.inf)
            total = torch.logaddexp(sums, prefix_sums)
            share = (prefix_sums - total).exp_().to(out.dtype)
            out, sums = out.lerp_(on_prefix, share.t()[..., None]), total
        ctx.save_for_backward(query, key, value, out, sums, *state)
        ctx.segments, ctx.scaling = segments, scaling
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums, *state = ctx.saved_tensors
        segments, gradient = ctx.segments, gradient.contiguous()
        alone = segments.alone
        dq, dk, dv = _pull_back(gradient, query, key, value, out, sums, state, alone, alone, True, ctx.scaling)
        if len(prefixes := segments.prefixes):
            keys, values = (item.index_select(0, prefixes) for item in (key, value))
            spans = segments.asking, segments.asked
            found = _pull_back(gradient, query, keys, values, out, sums, state, *spans, False, ctx.scaling)
            dq += found[0]
            for whole, part in zip((dk, dv), found[1:], strict=True):
                whole.index_copy_(0, prefixes, part.add_(whole.index_select(0, prefixes)))  # no place twice
        return dq, dk, dv, None, None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, asking: Spans, asked: Spans, is_causal: bool, scaling: float
) -> tuple[Tensor, ...]:
    """Results `[n, H, d]`, logarithms of sums `[H, n]`, and the two tensors that the backward call wants back."""
    spans = asking.edges, asked.edges, asking.longest, asked.longest
    return _forward(query, key, value, *spans, 0.0, is_causal, False, scale=scaling)[:4]


def _pull_back(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    state: list[Tensor],
    asking: Spans,
    asked: Spans,
    is_causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    spans = asking.edges, asked.edges, asking.longest, asked.longest
    return _backward(gradient, query, key, value, out, sums, *spans, 0.0, is_causal, *state, scale=scaling)
