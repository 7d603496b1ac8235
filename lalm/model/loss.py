"""Cross-entropy at supervised positions only: the vocabulary is never computed at audio and prompt positions.

Behind a frozen vocabulary matrix no logits are kept for the backward pass: a row's loss depends on its state alone, so
its gradient is computed beside it, and the backward pass only weighs it (as Liger's fused loss, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lalm.model.sharding import is_whole

IGNORED = -100
"""The label of a position without supervision."""
CHUNK_LOGITS = 2**25
"""Logits held at once, in numbers: 128 MiB in float32."""
FROZEN_CHUNK_LOGITS = 7 * 2**20
"""The same behind a frozen head, which is done with a chunk at once: fewer stay in the processor's caches. 28 MiB, as
glibc asks the system anew for each 32 MiB, and gives them back: a third of the time of a chunk."""

ROWS = 16
"""Rows of a chunk behind a frozen head are a multiple of it, where there are several."""


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
    if is_frozen_matrix(head):
        return _FrozenHeadLosses.apply(used, targets, head)
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


def is_frozen_matrix(head: Callable[[Tensor], Tensor]) -> bool:
    """Whether a head is a matrix that does not train, whole in this process, and nothing else.

    ZeRO-3 and FSDP hold a share of it between its calls, and a quantised one is no matrix.
    """
    return (
        type(head) is nn.Linear
        and is_whole(head.weight)
        and not any(parameter.requires_grad for parameter in head.parameters())
    )


class _FrozenHeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, used: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
        count, chunk = len(targets), _even_chunk(len(targets), FROZEN_CHUNK_LOGITS // head.out_features)
        missing = -count % chunk
        used, targets = nn.functional.pad(used, (0, 0, 0, missing)), nn.functional.pad(targets, (0, missing))
        losses, gradients = [], []
        for states, labels in zip(used.split(chunk), targets.split(chunk), strict=True):
            logits = head(states)
            wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
            scores = torch.log_softmax(logits, dim=-1, dtype=wide)
            losses.append(-scores.gather(-1, labels[:, None])[:, 0])
            if ctx.needs_input_grad[0]:
                scores.exp_().scatter_add_(-1, labels[:, None], scores.new_full((len(labels), 1), -1.0))
                gradients.append(scores.to(logits.dtype) @ head.weight)
        ctx.save_for_backward(torch.cat(gradients)[:count] if gradients else used.new_zeros(0))
        return torch.cat(losses)[:count]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (by_state,) = ctx.saved_tensors
        return (by_state * gradient[:, None]).to(by_state.dtype), None, None


def _even_chunk(count: int, most: int) -> int:
    """Rows of each chunk: as few chunks as `most` rows allow, and where they are several of even and seldom new sizes
    (for each size of a product oneDNN writes a program, which takes longer than the padding)."""
    if count <= max(1, most):
        return max(1, count)
    most = max(ROWS, most // ROWS * ROWS)
    num_chunks = -(-count // most)
    return -(-count // num_chunks // ROWS) * ROWS


def _losses(hidden_states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    if len(targets) == 0:
        return hidden_states.sum(dim=-1)
    return nn.functional.cross_entropy(_upcast(head(hidden_states)), targets, reduction="none")


def _upcast(logits: Tensor) -> Tensor:
    """float32 at least; float64 stays, for comparisons."""
    return logits if logits.dtype == torch.float64 else logits.float()
