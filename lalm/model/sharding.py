"""Whether a parameter is here: ZeRO-3 and FSDP deal parameters out, and bring them together only while a module runs."""

from __future__ import annotations

from torch import Tensor, nn


def is_whole(parameter: Tensor) -> bool:
    """Whether a parameter can be read outside its module's forward pass: an ordinary one, of no other type."""
    return type(parameter) is nn.Parameter and not hasattr(parameter, "ds_id")
