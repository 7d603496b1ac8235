"""Attention inside groups on a CPU, without any mask: PyTorch's flash kernel on slices of the rows.

A prefix attends to itself causally. A branch attends to the whole prefix and to itself causally: two results, which
are put together by their sums of exponentials. Scores are never stored: the backward pass computes them again
from the sums, for which FlashAttention's formula holds piece by piece (arXiv 2307.08691).

Keys and values are not repeated for grouped queries: the kernel reads them with a stride of zero. Short groups are
computed together, and so are the branches of long ones on themselves, see `lalm.model.short_groups`.

bfloat16 is computed in float32, in which the kernel is faster, forward and backward. Where the processor multiplies
matrices of bfloat16 in tiles (AMX), `lalm.model.tiled_groups` is faster still, once it is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lalm.model.packed_rows import Group, PackedRows
from lalm.model.short_groups import ShortGroups

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

SHORT = 128
"""Groups up to that length are padded and computed together; the padding of longer ones costs more than the calls that
it spares."""


@torch.compiler.disable  # of a compiled layer (`lalm.model.compiled_layers`) what stands before it and after it is
def flash_groups(query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scaling: float) -> Tensor:
    """query `[R, H, L, d]`, key and value `[R, K, L, d]` with K dividing H -> `[R, L, H, d]`, zero at padding."""
    return _FlashGroups.apply(query, key, value, rows, scaling)


class _FlashGroups(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scaling: float) -> Tensor:
        dtype = _wide(query.dtype)
        wide = query.to(dtype), key.to(dtype), value.to(dtype)
        q, k, v = _by_key_head(*wide)
        parts = _parts(rows, query, key)
        out, out_rows = _head_rows(query, dtype if parts.long else value.dtype)
        sums, sum_rows = _head_rows(query[..., :1], dtype)
        for bucket in parts.short:
            result, log_sums = bucket.attend(*wide, scaling)
            bucket.queries.scatter(result.to(out.dtype), out_rows)
            bucket.queries.scatter(log_sums, sum_rows)
        out_by_key, sums_by_key = out.unflatten(1, q.shape[1:3]), sums.unflatten(1, q.shape[1:3])[..., 0]
        for group in parts.long:
            for queries, keys, is_causal in parts.pieces(group):
                piece = q[group.row, :, :, queries], k[group.row, :, :, keys], v[group.row, :, :, keys]
                place = group.row, slice(None), slice(None), queries
                result, log_sums = _forward(*piece, 0.0, is_causal, scale=scaling)
                if keys.start >= group.prefix_end > group.start:  # the prefix was seen before
                    result, log_sums = _together(out_by_key[place], sums_by_key[place], result, log_sums)
                out_by_key[place], sums_by_key[place] = result, log_sums
        for bucket, sees_prefix in parts.branches:
            result, log_sums = bucket.attend(*wide, scaling)
            if sees_prefix:
                seen = bucket.queries.rows(out_rows), bucket.queries.rows(sum_rows)[..., 0]
                result, log_sums = _together(*seen, result, log_sums[..., 0])
                log_sums = log_sums[..., None]
            bucket.queries.scatter(result.to(out.dtype), out_rows)
            bucket.queries.scatter(log_sums, sum_rows)
        merged = out.transpose(1, 2).to(value.dtype)
        ctx.save_for_backward(query, key, value, merged, sums)
        ctx.rows, ctx.scaling = rows, scaling
        return merged

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, merged, sums = ctx.saved_tensors
        dtype = sums.dtype
        wide = query.to(dtype), key.to(dtype), value.to(dtype)
        pull, out = (item.to(dtype).transpose(1, 2) for item in (gradient, merged))
        parts = _parts(ctx.rows, query, key)
        gradients = [_head_rows(item, sums.dtype if parts.long else item.dtype) for item in (query, key, value)]
        for bucket in (*parts.short, *(bucket for bucket, _ in parts.branches)):
            found = bucket.pull_back(*wide, pull, out, sums, ctx.scaling)
            heads = (bucket.queries, bucket.keys, bucket.keys)
            for place, gradient, (whole, rows) in zip(heads, found, gradients, strict=True):
                place.scatter(gradient.to(whole.dtype), rows)
        dq, dk, dv = (whole for whole, _ in gradients)
        if parts.long:
            q, k, v = _by_key_head(*wide)
            pull, out, sums = (item.unflatten(1, q.shape[1:3]) for item in (pull, out, sums))
            dq_by_key = dq.unflatten(1, q.shape[1:3])
            for group in parts.long:
                for queries, keys, is_causal in parts.pieces(group):
                    place, seen = ((group.row, slice(None), slice(None), part) for part in (queries, keys))
                    dq_piece, dk_piece, dv_piece = _backward(
                        pull[place], q[place], k[seen], v[seen], out[place], sums[place][..., 0], 0.0, is_causal,
                        scale=ctx.scaling,
                    )  # fmt: skip
                    dq_by_key[place] += dq_piece
                    dk[group.row, :, keys] += dk_piece.sum(1)
                    dv[group.row, :, keys] += dv_piece.sum(1)
        return dq.to(query.dtype), dk.to(key.dtype), dv.to(value.dtype), None, None


@dataclass(frozen=True)
class _Parts:
    """What is computed together, and what group by group."""

    short: list[ShortGroups]
    """Whole groups."""
    long: list[Group]
    """Groups of which the prefix on itself, and all branches on the prefix, are a call each."""
    branches: list[tuple[ShortGroups, bool]]
    """Short branches of long groups, each on itself; and whether they see a prefix beside."""

    def pieces(self, group: Group):
        """(query places, key places, whether causal) of a long group: its prefix on itself, all its branches on the
        prefix, its long branches on themselves."""
        prefix = slice(group.start, group.prefix_end)
        if group.prefix_end > group.start:
            yield prefix, prefix, True
            if group.branches:
                yield slice(group.prefix_end, group.end), prefix, False
        for start, end in group.branches:
            if end - start > SHORT:
                yield slice(start, end), slice(start, end), True


def _parts(rows: PackedRows, query: Tensor, key: Tensor) -> _Parts:
    heads = query.shape[1], key.shape[1]

    def together(groups: Sequence[Group]) -> list[ShortGroups]:
        return [ShortGroups(bucket, *heads, query.shape[0] * query.shape[2]) for bucket in rows.few_buckets(groups)]

    def make() -> _Parts:
        long = [group for group in rows.groups if len(group) > SHORT]
        branches = []
        for sees_prefix in (True, False):
            alone = [Group(group.row, start, end, ()) for group in long for start, end in group.branches
                     if (group.prefix_end > group.start) == sees_prefix and end - start <= SHORT]  # fmt: skip
            branches += [(bucket, sees_prefix) for bucket in together(alone)]
        return _Parts(together([group for group in rows.groups if len(group) <= SHORT]), long, branches)

    return rows.kept(("flash", heads), make)


def _head_rows(heads: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Zeros as `[R, H, L, d]`, and the same as rows `[R L H + 1, d]`; the last is for what nobody reads."""
    num_rows, num_heads, length, width = heads.shape
    rows = torch.zeros(num_rows * length * num_heads + 1, width, dtype=dtype)
    return rows[:-1].view(num_rows, length, num_heads, width).transpose(1, 2), rows


def _together(seen: Tensor, seen_sums: Tensor, result: Tensor, log_sums: Tensor) -> tuple[Tensor, Tensor]:
    """Two results `[..., d]` of the same queries on different keys, with logarithms of sums `[...]` -> that on both."""
    total = torch.logaddexp(seen_sums, log_sums)
    shares = ((sums - total).exp_()[..., None] for sums in (seen_sums, log_sums))
    return (seen * next(shares)).addcmul_(result, next(shares)), total


def _by_key_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`[R, K, H / K, L, d]` each: views of keys and values, not copies for every query head."""
    q = query.unflatten(1, (key.shape[1], -1))
    k, v = (item[:, :, None].expand(-1, -1, q.shape[2], -1, -1) for item in (key, value))
    return q, k, v


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
