"""Weights and inputs that a formula gives, so that a fixture holds expected outputs alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

NORMS = ("norm.weight", "norm1.weight", "norm1_a.weight", "norm2.weight", "norm2_a.weight", "norm_a.weight",
         "LayerNorm.weight", "layernorm.weight", "ln_speech.weight", "ln_audio.weight", "qformer_proj_norm.weight",
         "norm_j.weight", "norm_k.weight")  # fmt: skip
"""Weights around one; the others lie around zero."""


def formula(name: str, shape: Sequence[int]) -> Tensor:
    """`0.2 sin(0.913 i + phase of the name)`, one more where the name is a norm's scale."""
    phase = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) % 1000
    wave = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.913 + phase)
    return (wave * 0.2 + (1.0 if name.endswith(NORMS) else 0.0)).float().view(*shape)


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A checkpoint of these names and shapes."""
    return {name: formula(name, shape) for name, shape in shapes.items()}


@torch.no_grad()
def fill(module: nn.Module, prefix: str = "") -> None:
    """Gives every parameter of a module the formula's values under its own name."""
    for name, parameter in module.named_parameters():
        parameter.copy_(formula(prefix + name, parameter.shape))
