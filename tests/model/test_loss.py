"""The loss at supervised positions equals the plain one, whole or in chunks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lalm.model import loss as loss_module
from lalm.model.loss import IGNORED, language_model_loss, supervised_positions


@pytest.fixture
def case():
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False)
    hidden = torch.randn(3, 12, 8, requires_grad=True)
    labels = torch.randint(0, 50, (3, 12))
    labels[torch.rand(3, 12) < 0.6] = IGNORED
    return head, hidden, labels


def plain(head, hidden, labels):
    logits = head(hidden)[:, :-1].reshape(-1, 50)
    return nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=IGNORED)


@pytest.mark.parametrize("chunk_logits", [2**25, 150])
def test_equals_the_full_loss_and_its_gradients(case, chunk_logits, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", chunk_logits)
    head, hidden, labels = case
    expected = plain(head, hidden, labels)
    expected_grads = torch.autograd.grad(expected, [hidden, head.weight])
    got = language_model_loss(hidden, labels, head, vocab_size=50)
    got_grads = torch.autograd.grad(got, [hidden, head.weight])
    torch.testing.assert_close(got, expected)
    for a, b in zip(got_grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b)


def test_accumulated_micro_batches_add_up_to_the_whole(case):
    head, hidden, labels = case
    total = int(supervised_positions(labels)[0].sum())
    parts = [
        language_model_loss(hidden[i : i + 1], labels[i : i + 1], head, vocab_size=50, num_items=total)
        for i in range(3)
    ]
    torch.testing.assert_close(sum(parts), plain(head, hidden, labels))


def test_a_batch_without_supervision_has_zero_loss_and_a_gradient(case):
    head, hidden, labels = case
    loss = language_model_loss(hidden, torch.full_like(labels, IGNORED), head, vocab_size=50)
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()
