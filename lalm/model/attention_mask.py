"""The attention mask of packed rows: several conversations in one row, none of which sees another.

A row holds groups; a group is a shared prefix (system text and clips) followed by branches (question and answer).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig

PADDING = -1
"""Group and branch id of a position that belongs to nothing."""
PREFIX = 0
"""Branch id of the positions that all branches of a group see."""
MASKED_LAYERS = {"full_attention", "sliding_attention"}
"""Types of layers that keep conversations of one row apart when the mask says so."""


def masks_of_layers(
    config: PreTrainedConfig, group_ids: Tensor, branch_ids: Tensor, position_ids: Tensor | None, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The mask of packed rows as a model takes it: one for all its layers, or one for each type of layer.

    transformers leaves a ready mask as it is, so the window of sliding layers (Mistral, Gemma 2 and 3) is put in here.
    It is counted in positions of the conversation, not in places of the row.
    """
    full = mask_from_segments(group_ids, branch_ids, dtype)
    window, types = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
    if window is None or position_ids is None or group_ids.shape[1] <= window or types == {"full_attention"}:
        return full
    is_far = position_ids[:, :, None] - position_ids[:, None, :] >= window
    sliding = full.masked_fill(is_far[:, None], torch.finfo(dtype).min)
    return {name: sliding if name == "sliding_attention" else full for name in types} if types else sliding


def mask_from_segments(group_ids: Tensor, branch_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """`[R, L]` group and branch ids -> additive mask `[R, 1, L, L]`: 0 where position i may look at j, else -inf-like.

    i looks at j when j does not come later in the row, both belong to one group, and j is in the group's prefix or in
    i's own branch. A padding position looks at itself, so that no row of the softmax is empty.
    """
    length = group_ids.shape[1]
    order = torch.arange(length, device=group_ids.device)
    same_group = group_ids[:, :, None] == group_ids[:, None, :]
    visible = (branch_ids[:, None, :] == PREFIX) | (branch_ids[:, None, :] == branch_ids[:, :, None])
    allowed = (order[:, None] >= order[None, :]) & same_group & visible & (group_ids != PADDING)[:, None, :]
    allowed |= torch.eye(length, dtype=torch.bool, device=group_ids.device)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=group_ids.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
