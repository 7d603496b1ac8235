"""Attention of many short groups at once, for `lalm.model.flash_groups`: padded to one length, with a mask of each.

A row of questions about short clips holds dozens of groups of some tens of positions. What a call costs beside its
arithmetic would be most of the work, group by group; here a layer takes a dozen calls, however many groups there are.

Heads are read and written as rows `[R L H, d]` of one matrix, in one pass each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lalm.model.packed_rows import Bucket

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class HeadRows:
    """Where the heads of a bucket's groups lie among the rows of `[R L H, d]`: `G` groups padded to `l` places."""

    read: Tensor
    """`[G H l]`; at padding some row that exists."""
    write: Tensor
    """`[G H l]`; at padding one row behind the last."""
    shape: tuple[int, int, int]
    """`G`, `H`, `l`."""

    @classmethod
    def of(cls, bucket: Bucket, num_heads: int, num_places: int) -> HeadRows:
        heads = torch.arange(num_heads)[None, :, None]
        rows = bucket.index[:, None, :] * num_heads + heads
        write = rows.masked_fill(~bucket.is_real[:, None, :], num_places * num_heads)
        return cls(rows.flatten(), write.flatten(), tuple(rows.shape))  # type: ignore[arg-type]

    def gather(self, heads: Tensor) -> Tensor:
        """`[R, H, L, d]` -> `[G, H, l, d]`."""
        return self.rows(heads.transpose(1, 2).reshape(-1, heads.shape[-1]))

    def rows(self, rows: Tensor) -> Tensor:
        """Rows `[R L H, d]` or more -> `[G, H, l, d]`."""
        return rows.index_select(0, self.read).unflatten(0, self.shape)

    def scatter(self, values: Tensor, rows: Tensor) -> None:
        """Puts `[G, H, l, d]` into rows `[R L H + 1, d]`."""
        rows.index_copy_(0, self.write, values.reshape(-1, rows.shape[-1]))


class ShortGroups:
    """One bucket of groups for queries of `num_heads` and keys of `num_key_heads` heads."""

    def __init__(self, bucket: Bucket, num_heads: int, num_key_heads: int, num_places: int):
        self.queries = HeadRows.of(bucket, num_heads, num_places)
        self.keys = HeadRows.of(bucket, num_key_heads, num_places)
        self.num_shared = num_heads // num_key_heads
        self._mask = bucket.mask.repeat_interleave(num_key_heads, 0)
        self._biases: dict[torch.dtype, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, ...]:
        """`[R, H, L, d]` and twice `[R, K, L, d]` -> results `[G, H, l, d]`, logarithms of sums `[G, H, l, 1]`."""
        q, k, v = self._gathered(query, key, value)
        out, sums = _forward(q, k, v, 0.0, False, attn_mask=self._bias(q.dtype), scale=scaling)
        return tuple(item.unflatten(0, (self.queries.shape[0], -1)).flatten(1, 2) for item in (out, sums[..., None]))

    def pull_back(
        self, query: Tensor, key: Tensor, value: Tensor, pull: Tensor, out: Tensor, sums: Tensor, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries `[G, H, l, d]`, of keys and of values `[G, K, l, d]`.

        Args:
            pull, out: gradient of the result and the result, `[R, H, L, d]`.
            sums: `[R, H, L, 1]`.
        """
        q, k, v = self._gathered(query, key, value)
        pull, out, sums = (self._by_key_head(self.queries.gather(item)) for item in (pull, out, sums))
        dq, dk, dv = _backward(
            pull, q, k, v, out, sums[..., 0], 0.0, False, attn_mask=self._bias(q.dtype), scale=scaling
        )
        return dq, dk.sum(1), dv.sum(1)

    def _gathered(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[G K, S, l, d]` each: views of keys and values, not copies for the S queries that share them."""
        k, v = (self.keys.gather(item).flatten(0, 1)[:, None].expand(-1, self.num_shared, -1, -1)
                for item in (key, value))  # fmt: skip
        return self._by_key_head(self.queries.gather(query)), k, v

    def _by_key_head(self, heads: Tensor) -> Tensor:
        return heads.unflatten(1, (-1, self.num_shared)).flatten(0, 1)

    def _bias(self, dtype: torch.dtype) -> Tensor:
        """The mask as what is added to scores."""
        if dtype not in self._biases:
            zeros = torch.zeros(self._mask.shape, dtype=dtype)
            self._biases[dtype] = zeros.masked_fill_(~self._mask, -torch.inf)
        return self._biases[dtype]
