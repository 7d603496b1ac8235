"""The loss with logits at every position, which `supervised_only` is measured against. Training never uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lalm.model.loss import language_model_loss, supervised_positions


def full_vocabulary_loss(
    hidden_states: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], *, vocab_size: int, **options: Any
) -> Any:
    """As `language_model_loss`, after logits `[B, L, V]` are made and normalised in float32 at all positions."""
    everywhere = head(hidden_states).float().log_softmax(dim=-1)
    is_used, _ = supervised_positions(labels)
    # All in one chunk (`vocab_size` decides the chunks alone); normalising what is normalised changes nothing.
    return language_model_loss(hidden_states, labels, lambda _: everywhere[is_used], vocab_size=1, **options)
