"""Cross-entropy at supervised positions only: the vocabulary is never computed at audio and prompt positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
"""The label of a position without supervision."""
CHUNK_LOGITS = 2**25
"""Logits held at once, in numbers: 128 MiB in float32."""


def supervised_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels `[B, L]` (label i is predicted at i - 1) -> `is_used [B, L]`, `targets [n]`."""
    shifted = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    is_used = shifted != IGNORED
    return is_used, shifted[is_used]


def language_model_loss(
    hidden_states: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    vocab_size: int,
    num_items: Tensor | float | None = None,
) -> Tensor:
    """Mean negative log-likelihood of the supervised tokens, in float32.

    Args:
        hidden_states: `[B, L, D]`, the decoder's last states.
        labels: `[B, L]`, -100 where nothing is supervised.
        head: `[n, D]` -> logits `[n, V]`.
        num_items: what the sum is divided by; the supervised tokens of the whole optimizer step, so that accumulation
            and ranks weigh tokens equally. The count of this batch by default.
    """
    is_used, targets = supervised_positions(labels)
    used = hidden_states[is_used]
    if len(targets) == 0:
        return hidden_states.sum() * 0.0
    chunk = max(1, CHUNK_LOGITS // vocab_size)
    if len(targets) <= chunk:
        total = _summed_loss(used, targets, head)
    else:
        total = torch.stack(
            [
                checkpoint(_summed_loss, used[i : i + chunk], targets[i : i + chunk], head, use_reentrant=False)
                for i in range(0, len(targets), chunk)
            ]
        ).sum()
    return total / (len(targets) if num_items is None else num_items)


def _summed_loss(hidden_states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    return nn.functional.cross_entropy(head(hidden_states).float(), targets, reduction="sum")
