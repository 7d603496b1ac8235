"""Products of float32 matrices on a CPU's 16-bit units, as TF32 is used on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from lalm.training.distributed import uses_cpu


def are_short(model: nn.Module) -> bool:
    """Whether products of what trains in float32 may take bfloat16's 8 bits of each factor: where the language model is
    held in them, on a CPU that multiplies so. Sums stay in float32, and so do weights, gradients and optimizer."""
    has_units = uses_cpu() and torch.cpu._is_avx512_bf16_supported()
    return has_units and any(weight.dtype == torch.bfloat16 for _, weight in cast(Any, model).parts()["language_model"])


@contextmanager
def short_products(enabled: bool) -> Iterator[None]:
    """Within, oneDNN multiplies matrices of float32 in bfloat16, if `enabled`."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if enabled:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
