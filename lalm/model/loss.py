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


def token_losses(hidden_states: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], *, vocab_size: int) -> Tensor:
    """Negative log-likelihood of each supervised token `[n]`, row by row, in float32.

    Args:
        hidden_states: `[B, L, D]`, the decoder's last states.
        labels: `[B, L]`, -100 where nothing is supervised.
        head: `[n, D]` -> logits `[n, V]`.
    """
    is_used, targets = supervised_positions(labels)
    return losses_in_chunks(hidden_states[is_used], targets, head, vocab_size=vocab_size)


def losses_in_chunks(used: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], *, vocab_size: int) -> Tensor:
    """The loss of each state `[n, D]` that is `used` `[n]`; many of them give their logits up and make them again."""
    chunk = max(1, CHUNK_LOGITS // vocab_size)
    if len(targets) <= chunk:
        return _losses(used, targets, head)
    return torch.cat(
        [
            checkpoint(_losses, used[i : i + chunk], targets[i : i + chunk], head, use_reentrant=False)
            for i in range(0, len(targets), chunk)
        ]
    )


def language_model_loss(
    hidden_states: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    vocab_size: int,
    label_weights: Tensor | None = None,
    num_items: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted mean of the supervised tokens' losses, and the plain `token_losses [n]` (without gradient).

    Args:
        label_weights: `[B, L]`, the weight of each label; all count 1 by default. A record's weight divided by its
            number of labels makes the mean one over records.
        num_items: what the sum is divided by: the weights of the whole optimizer step, so that accumulation and ranks
            change nothing. Those of this batch by default.
    """
    is_used, targets = supervised_positions(labels)
    if len(targets) == 0:
        return hidden_states.sum() * 0.0, hidden_states.new_zeros(0)
    losses = token_losses(hidden_states, labels, head, vocab_size=vocab_size)
    if label_weights is None:
        weights = torch.ones_like(losses)
    else:
        weights = nn.functional.pad(label_weights[:, 1:], (0, 1))[is_used].to(losses.dtype)
    total = (losses * weights).sum()
    return total / (weights.sum() if num_items is None else num_items), losses.detach()


def _losses(hidden_states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    if len(targets) == 0:
        return hidden_states.sum(dim=-1)
    return nn.functional.cross_entropy(_upcast(head(hidden_states)), targets, reduction="none")


def _upcast(logits: Tensor) -> Tensor:
    """float32 at least; float64 stays, for comparisons."""
    return logits if logits.dtype == torch.float64 else logits.float()
