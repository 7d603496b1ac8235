"""Blending clips of a micro-batch into one another, so that a small set is not learned by heart.

Source: manifold mixup (arXiv 1806.05236), with the answer of the clip that keeps the larger share, and the other clip
taken as its mean position: what is blended in has no order in time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lalm.model.contrastive import mean_rows


def blend_clips(positions: Tensor, num_positions: Tensor, most: float, *, num_summaries: int = 0) -> Tensor:
    """Moves the mean of each clip's positions towards the mean of another one's, by a random share.

    Args:
        positions: `[clips, A, D]` with zeros behind the real ones.
        num_positions: `[clips]`.
        most: each share is drawn evenly between 0 and this.
        num_summaries: a clip's last positions that stand for all of it: they move towards the other clip's.

    Returns:
        `[clips, A, D]`, zeros where there were zeros. No gradient reaches the other clip.
    """
    place = torch.arange(positions.shape[1], device=positions.device)
    lengths = num_positions - num_summaries
    means = mean_rows(positions.detach().float(), lengths)
    partners = torch.randperm(len(means), device=means.device)
    shares = most * torch.rand(len(means), 1, device=means.device)
    is_stretch = place < lengths[:, None]
    blended = positions + (is_stretch[..., None] * (shares * (means[partners] - means))[:, None]).to(positions.dtype)
    clips = torch.arange(len(means), device=means.device)
    for number in range(num_summaries):
        own = positions[clips, lengths + number].detach().float()
        moved = (shares * (own[partners] - own)).to(positions.dtype)
        blended = blended.index_put((clips, lengths + number), moved, accumulate=True)
    return blended
