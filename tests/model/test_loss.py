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


@pytest.mark.parametrize("chunk_logits", [2**23, 150])
@pytest.mark.parametrize("bias", [False, True])
def test_behind_a_frozen_head_it_is_the_same_loss_and_gradient(case, chunk_logits, bias, monkeypatch):
    monkeypatch.setattr(loss_module, "FROZEN_CHUNK_LOGITS", chunk_logits)
    _, hidden, labels = case
    head = nn.Linear(8, 50, bias=bias)
    weights = torch.rand(labels.shape)
    options = {"vocab_size": 50, "label_weights": weights}
    expected, expected_tokens = language_model_loss(hidden, labels, head, **options)
    (expected_grad,) = torch.autograd.grad(expected, [hidden])
    head.requires_grad_(False)
    got, tokens = language_model_loss(hidden, labels, head, **options)
    assert got.grad_fn is not None
    (got_grad,) = torch.autograd.grad(got, [hidden])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(tokens, expected_tokens)
    torch.testing.assert_close(got_grad, expected_grad)


def test_a_frozen_head_keeps_no_logits(case):
    """What waits for the backward pass is as wide as a state, and is computed only where a gradient is wanted."""
    _, hidden, labels = case
    head = nn.Linear(8, 50).requires_grad_(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda item: kept.append(item.shape) or item, lambda item: item):
        language_model_loss(hidden, labels, head, vocab_size=50)
    assert kept
    assert not [shape for shape in kept if 50 in shape]
    assert not language_model_loss(hidden.detach(), labels, head, vocab_size=50)[0].requires_grad


def test_only_a_whole_frozen_matrix_is_taken_for_one():
    head = nn.Linear(4, 6)
    assert not loss_module.is_frozen_matrix(head)
    head.requires_grad_(False)
    assert loss_module.is_frozen_matrix(head)
    assert not loss_module.is_frozen_matrix(lambda states: head(states) * 2)
    head.weight.ds_id = 7  # as ZeRO-3 marks what it has dealt out
    assert not loss_module.is_frozen_matrix(head)


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
