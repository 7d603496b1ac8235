"""Attention of packed rows in two calls: its segments and sums with a kernel written out here, and the GPU's own."""

from __future__ import annotations

import pytest
import torch
from test_grouped_attention import rows_of
from torch import Tensor

from lalm.model import varlen_groups as module
from lalm.model.grouped_attention import grouped_attention, padded_groups
from lalm.model.packed_rows import PackedRows

PADDED = rows_of([[7, 3, 5, 1], [4], [1, 1]], [[0, 4, 2], [9, 6, 6]], length=30)
WHOLE = rows_of([[7, 3, 5], [0, 4, 2], [9]])
LONG = rows_of([[150, 70, 200], [300], [90, 130]], [[1, 129, 2], [257, 64], [33]])
LAYOUTS = {
    "padded": PADDED,
    "whole": WHOLE,
    "long": LONG,
    "no branches": rows_of([[5], [8]]),
    "no prefix": rows_of([[0, 3, 2]]),
}


def kernel(q: Tensor, k: Tensor, v: Tensor, cu_q, cu_k, longest_q, longest_k, dropout, is_causal, debug, *, scale):
    """FlashAttention's forward call, segment by segment: (results, logarithms of sums `[H, n]`, two to hand back)."""
    assert longest_q == max(cu_q.diff())
    assert longest_k == max(cu_k.diff())
    out, sums = torch.zeros_like(q), q.new_zeros(q.shape[1], len(q))
    for asking, asked in _segments(cu_q, cu_k):
        if asked.start == asked.stop:
            sums[:, asking] = torch.inf  # as the kernel says it
            continue
        scores = _scores(q[asking], k[asked], is_causal, scale)
        sums[:, asking] = scores.logsumexp(-1)
        out[asking] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), _repeated(v[asked], q))
    return out, sums, q.new_zeros(1), q.new_zeros(1), q.new_zeros(1)


def backward_kernel(
    pull, q, k, v, out, sums, cu_q, cu_k, longest_q, longest_k, dropout, is_causal, rng, unused, *, scale
):
    """FlashAttention's formula with the results and sums that are given."""
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for asking, asked in _segments(cu_q, cu_k):
        weights = (_scores(q[asking], k[asked], is_causal, scale) - sums[:, asking, None]).exp()
        along = (pull[asking] * out[asking]).sum(-1).t()[..., None]
        scores = weights * (torch.einsum("qhd,khd->hqk", pull[asking], _repeated(v[asked], q)) - along) * scale
        dq[asking] = torch.einsum("hqk,khd->qhd", scores, _repeated(k[asked], q))
        shared = (k.shape[1], q.shape[1] // k.shape[1])
        dk[asked] = torch.einsum("hqk,qhd->khd", scores, q[asking]).unflatten(1, shared).sum(2)
        dv[asked] = torch.einsum("hqk,qhd->khd", weights, pull[asking]).unflatten(1, shared).sum(2)
    return dq, dk, dv


def _segments(cu_q, cu_k):
    edges = list(zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True))
    return [(slice(int(a), int(b)), slice(int(c), int(d))) for a, b, c, d in edges]


def _scores(q: Tensor, k: Tensor, is_causal: bool, scale: float) -> Tensor:
    scores = torch.einsum("qhd,khd->hqk", q, _repeated(k, q)) * scale
    if is_causal:
        assert len(q) == len(k)
        scores = scores.masked_fill(torch.ones(len(q), len(k)).triu(1).bool(), -torch.inf)
    return scores


def _repeated(heads: Tensor, q: Tensor) -> Tensor:
    return heads.repeat_interleave(q.shape[1] // heads.shape[1], 1)


def heads_of(ids: dict[str, Tensor], dtype: torch.dtype, device: str, width: int = 8) -> list[Tensor]:
    """Query, key, value and the gradient of a result, seeded."""
    random = torch.Generator().manual_seed(3)
    num_rows, length = ids["group_ids"].shape
    shapes = [(num_rows, count, length, width) for count in (4, 2, 2)] + [(num_rows, length, 4, width)]
    return [torch.randn(shape, generator=random).to(device, dtype) for shape in shapes]


def passes(attend, query, key, value, pull) -> list[Tensor]:
    """A result and three gradients."""
    inputs = [item.detach().clone().requires_grad_() for item in (query, key, value)]
    out = attend(*inputs)
    out.backward(pull.to(out.dtype))
    return [out.detach(), *(item.grad for item in inputs)]


@pytest.mark.parametrize("ids", LAYOUTS.values(), ids=LAYOUTS)
def test_segments_and_sums_are_those_of_the_groups(ids, monkeypatch):
    monkeypatch.setattr(module, "_forward", kernel)
    monkeypatch.setattr(module, "_backward", backward_kernel)
    rows = PackedRows.of(**ids)
    given = heads_of(ids, torch.float64, "cpu")
    ours = passes(lambda *heads: module.varlen_groups(*heads, rows, 0.3), *given)
    theirs = passes(lambda *heads: padded_groups(*heads, rows, 0.3), *given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_a_kernel_that_forgets_the_prefix_would_be_seen(monkeypatch):
    """The comparison above is about branches that see a prefix: without the second call it fails."""
    monkeypatch.setattr(module, "_forward", kernel)
    rows = PackedRows.of(**PADDED)
    heads = heads_of(PADDED, torch.float64, "cpu")[:3]
    segments = module.Segments.of(rows)
    assert segments.asking.edges.tolist() == [0, 7, 16, 21, 22, 37, 49]
    assert segments.asked.edges.tolist() == [0, 0, 7, 7, 8, 8, 17]
    whole = module.varlen_groups(*heads, rows, 0.3)
    blind = PackedRows.of(**{**PADDED, "branch_ids": PADDED["branch_ids"] + (PADDED["branch_ids"] == 0)})
    assert not torch.allclose(whole, module.varlen_groups(*heads, blind, 0.3))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("width", [8, 64, 128])
@pytest.mark.parametrize("ids", LAYOUTS.values(), ids=LAYOUTS)
def test_the_gpu_agrees_with_padded_groups_in_float32(ids, width, dtype):
    on_gpu = {name: value.cuda() for name, value in ids.items()}
    rows = PackedRows.of(**on_gpu)
    given = heads_of(ids, dtype, "cuda", width)
    assert module.takes_varlen(given[0], given[2])

    def attend(*heads):
        return grouped_attention(torch.nn.Identity(), *heads, None, packed_rows=rows)[0]

    ours = passes(attend, *given)
    exact = passes(attend, *(item.float() for item in given))  # float32 takes the padded way
    plain = passes(lambda *heads: padded_groups(*heads, rows, width**-0.5), *given)
    for one, other, reference in zip(ours, plain, exact, strict=True):
        error, usual = ((item.float() - reference).norm() / reference.norm() for item in (one, other))
        assert error < max(2 * usual.item(), 1e-3), (error, usual)
