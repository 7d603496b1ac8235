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
        result = cast(nn.Linear, self.base_layer)(x)
        added = torch.addmm(
            result.flatten(0, -2), nn.functional.linear(x, down).flatten(0, -2), up.t(), alpha=self.scaling[name]
        )
        return added.view(result.shape)

    def _plain_adapter(self, x: Tensor) -> str | None:
        """The adapter's name, where there is one and nothing but LoRA's two products is asked for."""
        if x.dtype not in NARROW or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        has_dropout = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        if has_dropout or name in self.lora_variant or self.lora_bias[name]:
            return None
        return name if is_whole(cast(nn.Linear, self.lora_A[name]).weight) else None


def narrow_adapters(model: nn.Module) -> None:
    """Gives the adapters on plain matrices this way, in place; quantised matrices and other layers keep PEFT's."""
    for module in model.modules():
        if type(module) is LoraLinear and type(module.base_layer) is nn.Linear:
            module.__class__ = NarrowLora
