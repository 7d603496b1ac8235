"""Attention inside groups on a CPU, without any mask: PyTorch's flash kernel on slices of the rows.

A prefix attends to itself causally. A branch attends to the whole prefix and to itself causally: two calls, whose
results are put together by their sums of exponentials. Scores are never stored: the backward pass computes them again
from the sums, for which FlashAttention's formula holds piece by piece (arXiv 2307.08691).

Computes in float32 also for bfloat16: the kernel is faster in it, forward and backward. Keys and values are not
repeated for grouped queries: the kernel reads them with a stride of zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lalm.model.packed_rows import Group, PackedRows

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def flash_groups(query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scaling: float) -> Tensor:
    """query `[R, H, L, d]`, key and value `[R, K, L, d]` with K dividing H -> `[R, L, H, d]`, zero at padding."""
    return _FlashGroups.apply(query, key, value, rows, scaling)


class _FlashGroups(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scaling: float) -> Tensor:
        q, k, v = _by_key_head(query, key, value)
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        sums = q.new_zeros(q.shape[:-1])
        for group in rows.groups:
            for queries, keys, is_causal in _pieces(group):
                piece = q[group.row, :, :, queries], k[group.row, :, :, keys], v[group.row, :, :, keys]
                result, log_sums = _forward(*piece, 0.0, is_causal, scale=scaling)
                place = group.row, slice(None), slice(None), queries
                if is_causal and queries.start >= group.prefix_end > group.start:  # the prefix was seen before
                    total = torch.logaddexp(sums[place], log_sums)
                    before = (sums[place] - total).exp_()[..., None]
                    out[place] = out[place].mul_(before).addcmul_(result, (log_sums - total).exp_()[..., None])
                    sums[place] = total
                else:
                    out[place], sums[place] = result, log_sums
        merged = out.flatten(1, 2).transpose(1, 2).to(value.dtype)
        ctx.save_for_backward(query, key, value, merged, sums)
        ctx.rows, ctx.scaling = rows, scaling
        return merged

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, merged, sums = ctx.saved_tensors
        q, k, v = _by_key_head(query, key, value)
        split = (key.shape[1], -1)
        out = merged.to(q.dtype).transpose(1, 2).unflatten(1, split)
        gradient = gradient.to(q.dtype).transpose(1, 2).unflatten(1, split)
        dq = torch.zeros_like(q, memory_format=torch.contiguous_format)
        dk, dv = (torch.zeros(item.shape, dtype=q.dtype) for item in (key, value))
        for group in ctx.rows.groups:
            row = group.row
            for queries, keys, is_causal in _pieces(group):
                place = row, slice(None), slice(None), queries
                piece = q[place], k[row, :, :, keys], v[row, :, :, keys], out[place], sums[place]
                dq_piece, dk_piece, dv_piece = _backward(gradient[place], *piece, 0.0, is_causal, scale=ctx.scaling)
                dq[place] += dq_piece
                dk[row, :, keys] += dk_piece.sum(1)
                dv[row, :, keys] += dv_piece.sum(1)
        return dq.flatten(1, 2).to(query.dtype), dk.to(key.dtype), dv.to(value.dtype), None, None


def _pieces(group: Group):
    """(query places, key places, whether causal): prefix on itself, all branches on the prefix, each on itself."""
    prefix = slice(group.start, group.prefix_end)
    if group.prefix_end > group.start:
        yield prefix, prefix, True
        if group.branches:
            yield slice(group.prefix_end, group.end), prefix, False
    for start, end in group.branches:
        yield slice(start, end), slice(start, end), True


def _by_key_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`[R, K, H / K, L, d]` each, in float32 at least: views of keys and values, not copies for every query head."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    q = query.to(dtype).unflatten(1, (key.shape[1], -1))
    k, v = (item.to(dtype)[:, :, None].expand(-1, -1, q.shape[2], -1, -1) for item in (key, value))
    return q, k, v
