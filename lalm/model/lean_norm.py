"""RMS norms of a frozen decoder on a CPU: the same numbers, fewer passes over memory.

Written as transformers writes it, a norm in bfloat16 makes six float32 tensors of its input's size, keeps three, and
its backward pass makes a dozen more: on two cores a fifth of a training step. Here it is computed some rows at a time,
which stay in the core's cache, and keeps its input and one number a row. Root mean square layer normalization:
arXiv 1910.07467.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from lalm.model.sharding import is_whole

BLOCK_NUMBERS = 2**17
"""Numbers that are computed at a time: half a mebibyte of float32."""


def lean_norms(model: nn.Module) -> None:
    """Gives the model's RMS norms this way, in place: those whose formula it is, seen by trying. Twice is as once."""
    for module in model.modules():
        is_norm = type(module).__name__.endswith("RMSNorm") and not isinstance(module, LeanNorm)
        if is_norm and _is_plain(module):
            module.__class__ = _lean(type(module))  # type: ignore[arg-type]


class LeanNorm(nn.Module):
    """What a norm's class gets: its own way where gradients go through it and none to its weight."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = cast(Tensor, self.weight)
        is_lean = (
            hidden_states.requires_grad
            and torch.is_grad_enabled()
            and hidden_states.device.type in ("cpu", "meta")
            and hidden_states.dtype == weight.dtype
            and not weight.requires_grad
            and is_whole(weight)
            and not torch.compiler.is_compiling()  # which joins the passes itself
        )
        if not is_lean:
            return super().forward(hidden_states)
        return _RMSNorm.apply(hidden_states, weight, _epsilon(self))


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        scales = torch.empty(x.shape[:-1].numel(), 1, dtype=torch.float32, device=x.device)
        for rows, scale, out in zip(_blocks(x), _blocks(scales, x.shape[-1]), _blocks(result), strict=True):
            wide = rows.float()
            torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon, out=scale)
            torch.mul(out.copy_(wide * scale), weight, out=out)
        ctx.save_for_backward(x, weight, scales)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales = ctx.saved_tensors
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        width = x.shape[-1]
        blocks = (_blocks(x), _blocks(scales, width), _blocks(gradient), _blocks(result))
        for rows, scale, pull, out in zip(*blocks, strict=True):
            normal = rows.float() * scale
            pull = (pull * weight).float()
            along = torch.linalg.vecdot(pull, normal)[:, None] / -width
            out.copy_(pull.addcmul_(normal, along).mul_(scale))
        return result, None, None


def _blocks(rows: Tensor, width: int = 0) -> tuple[Tensor, ...]:
    """`[..., d]` -> pieces of whole rows `[n, d]`; `width`: of rows beside which these lie. None on the meta device,
    where results have a size and no numbers."""
    if rows.is_meta:
        return ()
    return rows.reshape(-1, rows.shape[-1]).split(max(1, BLOCK_NUMBERS // (width or rows.shape[-1])))


@cache
def _lean(of: type[nn.Module]) -> type[nn.Module]:
    return type(of.__name__, (LeanNorm, of), {"__module__": of.__module__})


def _is_plain(norm: nn.Module) -> bool:
    """Whether `norm` computes `weight * x / rms(x)` to the bit, with a weight of its own numbers."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or _epsilon(norm) is None or not is_whole(weight):
        return False
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, len(weight), generator=random).to(torch.bfloat16)
    norm.weight = nn.Parameter(torch.randn(len(weight), generator=random).to(torch.bfloat16), requires_grad=False)
    try:
        return torch.equal(norm(x), _RMSNorm.apply(x, norm.weight, _epsilon(norm)))
    finally:
        norm.weight = weight


def _epsilon(norm: nn.Module) -> Any:
    return getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", None)
