"""Products of float32 (a projector's) in a processor's matrix units during training, as the decoder's are.

A GPU has TF32 for them (`training_arguments`). A CPU with tiles (AMX) rounds the factors to bfloat16 and adds in
float32, up to four times as fast, which is what autocast to bfloat16 makes of the same layers; weights, gradients and
all that is no product stay in float32. Objectives other than answers (similarities that are divided by a temperature)
keep exact products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lalm.recipe.schema import StageSection


@contextmanager
def products_in_tiles(stage: StageSection, model: nn.Module) -> Iterator[None]:
    """Where a model's decoder is held in bfloat16, on a CPU with tiles, in a stage that trains on answers alone;
    anywhere else nothing changes."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    decoder = getattr(model, "language_model", model)
    is_narrow = any(weight.dtype == torch.bfloat16 and weight.device.type == "cpu" for weight in decoder.parameters())
    is_plain = list(stage.objective_weights()) == ["language_model"]
    if is_narrow and is_plain and torch.cpu._is_amx_tile_supported():
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
