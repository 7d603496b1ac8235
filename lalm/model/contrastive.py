"""Contrastive alignment: the pooled audio vectors of a clip, or of a span of it, must be nearest to their own text.

No decoder pass is needed, so that a projector learns to speak the language model's words in a minute. Source: InfoNCE
(arXiv 1807.03748), audio -> text, as in CLAP (arXiv 2206.04769); the text side is the decoder's frozen embedding table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TEMPERATURE = 0.07


def contrastive_loss(
    pooled_audio: Tensor,
    candidates: Tensor,
    groups: Tensor,
    candidate_groups: Tensor,
    targets: Tensor,
    *,
    num_items: Tensor | float | None = None,
) -> Tensor:
    """Cross-entropy of each clip over the candidates of its own group, by cosine similarity.

    Args:
        pooled_audio: `[N, D]`. candidates: `[C, D]`, text embeddings.
        groups, candidate_groups: `[N]`, `[C]`; a clip is compared with candidates of its group only.
        targets: `[N]`, the candidate that is right.
        num_items: what the sum is divided by; N by default.
    """
    audio, text = nn.functional.normalize(pooled_audio, dim=-1), nn.functional.normalize(candidates, dim=-1)
    similarity = audio @ text.T / TEMPERATURE
    similarity = similarity.masked_fill(groups[:, None] != candidate_groups[None, :], -torch.inf)
    total = nn.functional.cross_entropy(similarity, targets, reduction="sum")
    return total / (len(targets) if num_items is None else num_items)


def mean_embeddings(table: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """`ids [C, K]` of `lengths [C]` -> mean rows of `table [V, D]`, `[C, D]`."""
    is_real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    rows = table[ids].float() * is_real[..., None]
    return rows.sum(dim=1) / lengths.clamp(min=1)[:, None]


def pool_spans(positions: Tensor, num_positions: Tensor, clips: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Means of `positions [B, A, D]` over spans `[N]` of clips, `[N, D]`.

    A span lies between two shares of its clip's `num_positions [B]`; every position that it touches counts, and at
    least one.
    """
    counts = num_positions[clips]
    first = torch.minimum((starts * counts).floor().long(), counts - 1)
    last = torch.maximum((ends * counts).ceil().long(), first + 1)
    index = torch.arange(positions.shape[1], device=positions.device)
    inside = (index >= first[:, None]) & (index < last[:, None])
    return (positions[clips].float() * inside[..., None]).sum(dim=1) / inside.sum(dim=1)[:, None]
