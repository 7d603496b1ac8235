"""Blending clips of a micro-batch into one another, so that a small set is not learned by heart.

Source: manifold mixup (arXiv 1806.05236), with the answer of the clip that keeps the larger share, and the other clip
taken as its mean position: what is blended in has no order in time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lalm.model.contrastive import mean_rows


def blend_clips(positions: Tensor, num_positions: Tensor, most: float) -> Tensor:
    """Moves the mean of each clip's positions towards the mean of another one's, by a random share.

    Args:
        positions: `[clips, A, D]` with zeros behind the real ones.
        num_positions: `[clips]`.
        most: each share is drawn evenly between 0 and this.

    Returns:
        `[clips, A, D]`, zeros where there were zeros. No gradient reaches the other clip.
    """
    means = mean_rows(positions.detach().float(), num_positions)
    others = means[torch.randperm(len(means), device=means.device)]
    shares = most * torch.rand(len(means), 1, device=means.device)
    is_real = torch.arange(positions.shape[1], device=positions.device) < num_positions[:, None]
    return positions + (is_real[..., None] * (shares * (others - means))[:, None]).to(positions.dtype)
