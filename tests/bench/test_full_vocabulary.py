"""Logits everywhere give the same loss and gradients as logits at supervised positions."""

from __future__ import annotations

import torch
from torch import nn

from lalm.bench.full_vocabulary import full_vocabulary_loss
from lalm.model.loss import language_model_loss


def test_loss_and_gradients_stay():
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False)
    hidden = torch.randn(3, 7, 8, requires_grad=True)
    labels = torch.randint(0, 50, (3, 7))
    labels[:, :3] = -100
    rows = []

    def counting(states: torch.Tensor) -> torch.Tensor:
        rows.append(states.shape[:-1].numel())
        return head(states)

    found = []
    for function in (language_model_loss, full_vocabulary_loss):
        loss, token_losses = function(hidden, labels, counting, vocab_size=50, num_items=5.0)
        found.append((loss, token_losses, *torch.autograd.grad(loss, [hidden, head.weight])))
    assert rows == [12, 21]
    for ours, everywhere in zip(*found, strict=True):
        torch.testing.assert_close(ours, everywhere)
