"""Attention inside groups in one compiled call forward and one backward, for processors with matrix tiles (AMX).

The same attention as `lalm.model.flash_groups`, in bfloat16, without slices, padding or masks of groups: the kernel in
`tiled_groups.cpp` walks over the groups itself, block by block, and keeps scores in the first cache. Its backward pass
is FlashAttention's (arXiv 2307.08691).

It is compiled by torch's own compiler of C++ into torch's own cache: some seconds, once on a machine. torch sees two
operations, so that compiled layers (`lalm.model.compiled_layers`) keep it in the middle of one piece.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lalm.model.native import library, why_no_library

SOURCE = Path(__file__).with_suffix(".cpp")
WIDTHS = range(32, 257, 32)
"""Of heads."""


def has_tiles(model: PreTrainedModel) -> bool:
    """Whether a decoder is of the kind that the kernel is for: frozen in bfloat16, on a CPU with tiles."""
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (
        model.device.type == "cpu"
        and torch.cpu._is_amx_tile_supported()
        and model.get_input_embeddings().weight.dtype == torch.bfloat16
        and width in WIDTHS
    )


def why_no_kernel() -> str | None:
    """Why the kernel cannot be had on this machine; None where it can. It is compiled to find out."""
    return why_no_library(SOURCE)


def takes_tiles(query: Tensor, key: Tensor) -> bool:
    """Whether the kernel computes these heads `[R, H, L, d]`."""
    return query.dtype == key.dtype == torch.bfloat16 and query.shape[-1] in WIDTHS


def tiled_groups(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, first_segments: Tensor, scaling: float
) -> Tensor:
    """query `[R, H, L, d]`, key and value `[R, K, L, d]` with K dividing H -> `[R, L, H, d]`, zero at padding.

    Args:
        segments, first_segments: see `PackedRows`.
    """
    return _attend(query, key, value, segments, first_segments, scaling)[0]


@torch.library.custom_op("lalm::attend_in_tiles", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, first_segments: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Also the logarithms (of base 2) of the sums of exponentials, `[R, H, L]`."""
    heads = [_with_whole_rows(item) for item in (query, key, value)]
    num_rows, num_heads, length, width = query.shape
    out = _rows(query)
    sums = query.new_empty(num_rows, num_heads, length, dtype=torch.float32)
    layout = _Layout.of(segments, first_segments, length)
    _kernel().forward(
        *map(_Heads.of, (*heads, out.transpose(1, 2))), sums.data_ptr(), layout,
        _Shape(num_heads, key.shape[1], width, scaling), torch.get_num_threads(),
    )  # fmt: skip
    return out, sums


@_attend.register_fake
def _(query, key, value, segments, first_segments, scaling):
    num_rows, num_heads, length, width = query.shape
    sums = query.new_empty(num_rows, num_heads, length, dtype=torch.float32)
    return query.new_empty(num_rows, length, num_heads, width), sums


@torch.library.custom_op("lalm::pull_back_in_tiles", mutates_args=())
def _pull_back(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, pull: Tensor, sums: Tensor,
    segments: Tensor, first_segments: Tensor, scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and values, each as `[R, L, H, d]`, as `out` and its gradient `pull` are."""
    heads = [_with_whole_rows(item) for item in (query, key, value, out.transpose(1, 2), pull.transpose(1, 2))]
    gradients = [_rows(item) for item in (query, key, value)]
    _, num_heads, length, width = query.shape
    layout = _Layout.of(segments, first_segments, length)
    _kernel().backward(
        *map(_Heads.of, (*heads, *(item.transpose(1, 2) for item in gradients))), sums.data_ptr(), layout,
        _Shape(num_heads, key.shape[1], width, scaling), torch.get_num_threads(),
    )  # fmt: skip
    return tuple(gradients)  # type: ignore[return-value]


@_pull_back.register_fake
def _(query, key, value, out, pull, sums, segments, first_segments, scaling):
    return tuple(item.new_empty(item.transpose(1, 2).shape) for item in (query, key, value))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scaling = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, pull: Tensor, _: None) -> tuple[Tensor | None, ...]:
    query, key, value, segments, first_segments, out, sums = ctx.saved_tensors
    gradients = _pull_back(query, key, value, out, pull, sums, segments, first_segments, ctx.scaling)
    return *(item.transpose(1, 2) for item in gradients), None, None, None


_attend.register_autograd(_backward, setup_context=_keep)


class _Heads(Structure):
    """`[R, H, L, d]` with strides in numbers; this and the next two are as the source has them."""

    _fields_ = (("data", c_void_p), ("row", c_int64), ("head", c_int64), ("token", c_int64))

    @classmethod
    def of(cls, heads: Tensor) -> _Heads:
        return cls(heads.data_ptr(), *heads.stride()[:3])


class _Layout(Structure):
    _fields_ = (("segments", c_void_p), ("first_segments", c_void_p), ("num_groups", c_int64), ("length", c_int64))

    @classmethod
    def of(cls, segments: Tensor, first_segments: Tensor, length: int) -> _Layout:
        return cls(segments.data_ptr(), first_segments.data_ptr(), len(first_segments) - 1, length)


class _Shape(Structure):
    _fields_ = (("num_heads", c_int64), ("num_key_heads", c_int64), ("width", c_int64), ("scaling", c_float))


@functools.cache
def _kernel() -> ctypes.CDLL:
    kernel = library(SOURCE)
    heads, others = POINTER(_Heads), (c_void_p, POINTER(_Layout), POINTER(_Shape), c_int)
    kernel.forward.argtypes = (*[heads] * 4, *others)
    kernel.backward.argtypes = (*[heads] * 8, *others)
    kernel.forward.restype = kernel.backward.restype = None
    return kernel


def _with_whole_rows(heads: Tensor) -> Tensor:
    """The same numbers, those of a token and head side by side."""
    return heads if heads.stride(-1) == 1 else heads.contiguous()


def _rows(heads: Tensor) -> Tensor:
    """Zeros `[R, L, H, d]` for `[R, H, L, d]`: the kernel writes nothing at padding."""
    return heads.new_zeros(heads.transpose(1, 2).shape)
