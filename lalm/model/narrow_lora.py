"""LoRA beside a frozen matrix of 16 bits, computed in those 16 bits: PEFT's layer under autocast, in fewer passes.

PEFT widens the whole input to the adapter's float32, and the sum with it: six passes over the activations for two small
products. Here the adapter's weights, which are few, are narrowed instead, and its second product is added in place of
being made. The adapter itself, its gradient and its optimizer stay in float32.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from lalm.model.sharding import is_whole

NARROW = (torch.bfloat16, torch.float16)


class NarrowLora(LoraLinear):
    """PEFT's layer, with a way of its own for one plain adapter on an input of 16 bits."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self._plain_adapter(x) if not args and not kwargs else None
        if name is None:
            return super().forward(x, *args, **kwargs)
        down, up = (cast(nn.Linear, part[name]).weight.to(x.dtype) for part in (self.lora_A, self.lora_B))
        base = cast(nn.Linear, self.base_layer)
        result = _Beside.apply(x.flatten(0, -2), base.weight, base.bias, down, up, self.scaling[name])
        return result.unflatten(0, x.shape[:-1])

    def _plain_adapter(self, x: Tensor) -> str | None:
        """The adapter's name, where there is one and nothing but LoRA's two products is asked for."""
        if x.dtype not in NARROW or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        has_dropout = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        if has_dropout or name in self.lora_variant or self.lora_bias[name]:
            return None
        parameters = (cast(nn.Linear, self.lora_A[name]).weight, *self.base_layer.parameters())
        return name if is_whole(parameters[0]) and not any(item.requires_grad for item in parameters[1:]) else None


class _Beside(torch.autograd.Function):
    """x `[n, in]`, frozen weight `[out, in]` and bias `[out]`, down `[r, in]`, up `[out, r]` -> `[n, out]`.

    The second of two products is added to the first in place, forward and backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        inner = x @ down.t()
        ctx.save_for_backward(x, inner, weight, down, up)
        ctx.scaling = scaling
        return nn.functional.linear(x, weight, bias).addmm_(inner, up.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, weight, down, up = ctx.saved_tensors
        of_inner = gradient @ up * ctx.scaling
        of_x = (gradient @ weight).addmm_(of_inner, down) if ctx.needs_input_grad[0] else None
        return of_x, None, None, of_inner.t() @ x, gradient.t() @ inner * ctx.scaling, None


def narrow_adapters(model: nn.Module) -> None:
    """Gives the adapters on plain matrices this way, in place; quantised matrices and other layers keep PEFT's."""
    for module in model.modules():
        if type(module) is LoraLinear and type(module.base_layer) is nn.Linear:
            module.__class__ = NarrowLora
