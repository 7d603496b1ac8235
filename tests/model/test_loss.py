"""The loss at supervised positions equals the plain one, whole or in chunks."""

from __future__ import annotations

import numpy as np
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
    got, tokens = language_model_loss(hidden, labels, head, vocab_size=50)
    assert tokens.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    got_grads = torch.autograd.grad(got, [hidden, head.weight])
    torch.testing.assert_close(got, expected)
    for a, b in zip(got_grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b)


def test_accumulated_micro_batches_add_up_to_the_whole(case):
    head, hidden, labels = case
    total = int(supervised_positions(labels)[0].sum())
    parts = [
        language_model_loss(hidden[i : i + 1], labels[i : i + 1], head, vocab_size=50, num_items=total)[0]
        for i in range(3)
    ]
    torch.testing.assert_close(sum(parts), plain(head, hidden, labels))


def test_a_batch_without_supervision_has_zero_loss_and_a_gradient(case):
    head, hidden, labels = case
    loss, tokens = language_model_loss(hidden, torch.full_like(labels, IGNORED), head, vocab_size=50)
    assert len(tokens) == 0
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()


def test_weighted_labels_equal_numpy(monkeypatch):
    """Weights by task, and a mean over records of unequal length, in float64 against sums written out."""
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", 100)
    rng = np.random.default_rng(4)
    hidden, matrix = rng.standard_normal((2, 9, 5)), rng.standard_normal((20, 5))
    labels, weights = np.full((2, 9), IGNORED), np.zeros((2, 9))
    for row, span, weight in ((0, slice(2, 4), 1.0), (0, slice(6, 9), 3.0), (1, slice(1, 9), 0.5)):
        labels[row, span] = rng.integers(0, 20, len(range(9)[span]))
        weights[row, span] = weight / len(range(9)[span])
    total = 0.0
    for row, place in zip(*np.nonzero(labels != IGNORED), strict=True):
        logits = matrix @ hidden[row, place - 1]
        total += weights[row, place] * (np.log(np.exp(logits).sum()) - logits[labels[row, place]])
    head = nn.Linear(5, 20, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(matrix))
    given = torch.from_numpy(hidden), torch.from_numpy(labels), head
    options = {"vocab_size": 20, "label_weights": torch.from_numpy(weights)}
    assert language_model_loss(*given, **options)[0].item() == pytest.approx(total / 4.5, rel=1e-12)
    assert language_model_loss(*given, **options, num_items=9)[0].item() == pytest.approx(total / 9, rel=1e-12)
