"""The contrastive loss against NumPy in float64, in one direction and in both, whole and dealt out over processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed

from lalm.model import contrastive
from lalm.model.contrastive import TEMPERATURE, Pairs, contrastive_loss, gather_pairs, mean_rows, pool_spans


@pytest.fixture
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    return Pairs(
        audio=torch.randn(5, 8, generator=generator, dtype=torch.float64).requires_grad_(),
        texts=torch.randn(7, 8, generator=generator, dtype=torch.float64),
        groups=torch.tensor([0, 0, 1, 1, 1]),
        text_groups=torch.tensor([0, 0, 0, 1, 1, 1, 1]),
        targets=torch.tensor([2, 0, 3, 6, 6]),
        keys=torch.tensor([3, 4, 5, 6, 10, 11, 12]),
    )


def twin(pairs: Pairs, temperature: float, both: bool) -> np.ndarray:
    """Equations 3 and 4, clip by clip."""
    audio, texts = (side.detach().numpy() for side in (pairs.audio, pairs.texts))
    audio = audio / np.linalg.norm(audio, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    groups, of_text, targets = (t.tolist() for t in (pairs.groups, pairs.text_groups, pairs.targets))
    rows = []
    for i, target in enumerate(targets):
        rivals = [np.exp(audio[i] @ texts[j] / temperature) for j in range(len(texts)) if of_text[j] == groups[i]]
        loss = -np.log(np.exp(audio[i] @ texts[target] / temperature) / sum(rivals))
        if both:
            clips = [j for j in range(len(audio)) if groups[j] == groups[i] and (j == i or targets[j] != target)]
            rivals = [np.exp(texts[target] @ audio[j] / temperature) for j in clips]
            loss = (loss - np.log(np.exp(texts[target] @ audio[i] / temperature) / sum(rivals))) / 2
        rows.append(loss)
    return np.array(rows)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("temperature", [TEMPERATURE, 0.5])
def test_equals_numpy(pairs, both, temperature):
    rows = twin(pairs, temperature, both)
    options = {"temperature": temperature, "both": both}
    assert contrastive_loss(pairs, **options).item() == pytest.approx(rows.mean(), rel=1e-12)
    assert contrastive_loss(pairs, **options, num_items=20).item() == pytest.approx(rows.sum() / 20, rel=1e-12)


def test_with_distinct_texts_it_is_equation_5():
    generator = torch.Generator().manual_seed(1)
    audio, texts = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    zeros, order = torch.zeros(6, dtype=torch.long), torch.arange(6)
    logits = torch.nn.functional.normalize(audio, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T / 0.2
    expected = (-logits.log_softmax(dim=1).diagonal() - logits.log_softmax(dim=0).diagonal()).sum() / (2 * 6)
    got = contrastive_loss(Pairs(audio, texts, zeros, zeros, order, order), temperature=0.2, both=True)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_texts_of_other_tasks_are_no_rivals(pairs):
    first = replace(pairs, audio=pairs.audio[:2], groups=pairs.groups[:2], targets=pairs.targets[:2])
    before = contrastive_loss(first).item()
    changed = first.texts.clone()
    changed[3:] = first.audio[0].detach()
    assert contrastive_loss(replace(first, texts=changed)).item() == pytest.approx(before)
    changed[1] = first.audio[0].detach()
    assert contrastive_loss(replace(first, texts=changed)).item() > before


@pytest.mark.parametrize("both", [False, True])
def test_processes_add_up_to_one(pairs, both, monkeypatch):
    """Values and gradients of two processes, the exchange between them replayed, are those of one with all clips."""
    weights = torch.randn(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    source = pairs.audio.detach()

    def share(clips: slice) -> Pairs:
        targets = pairs.targets[clips]
        used = targets.unique()
        return Pairs(source[clips] @ weights, pairs.texts[used], pairs.groups[clips], pairs.text_groups[used],
                     torch.searchsorted(used, targets), pairs.keys[used])  # fmt: skip

    shares = [share(slice(0, 2)), share(slice(2, 5))]
    used = pairs.targets.unique()
    whole = Pairs(source @ weights, pairs.texts[used], pairs.groups, pairs.text_groups[used],
                  torch.searchsorted(used, pairs.targets), pairs.keys[used])  # fmt: skip
    expected = contrastive_loss(whole, both=both)
    (wanted,) = torch.autograd.grad(expected, weights)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    total, gradient = 0.0, torch.zeros_like(wanted)
    for rank, own in enumerate(shares):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        fields = iter(
            [
                [item.audio.detach() for item in shares],
                [item.groups for item in shares],
                [item.keys[item.targets] for item in shares],
                [item.texts for item in shares],
                [item.keys for item in shares],
                [item.text_groups for item in shares],
            ]
        )
        monkeypatch.setattr(contrastive, "_gather", lambda tensor, fields=fields: list(next(fields)))
        gathered, first, count = gather_pairs(own)
        assert (first, count) == ((0, 2), (2, 3))[rank]
        loss = contrastive_loss(gathered, both=both, num_items=5, first_own=first, num_own=count)
        total += loss.item()
        gradient += torch.autograd.grad(loss, weights, retain_graph=True)[0]
    assert total == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


def test_no_clips_are_no_loss_but_a_gradient(pairs):
    empty = torch.zeros(0, dtype=torch.long)
    audio = torch.zeros(0, 8, requires_grad=True)
    loss = contrastive_loss(Pairs(audio, torch.zeros(0, 8), empty, empty, empty, empty), num_items=1)
    loss.backward()
    assert loss.item() == 0
    assert audio.grad is not None


def test_means_pass_over_padding():
    rows = torch.randn(2, 3, 4)
    means = mean_rows(rows, torch.tensor([3, 1]))
    torch.testing.assert_close(means, torch.stack([rows[0].mean(dim=0), rows[1, 0]]))


def test_spans_are_means_of_the_positions_that_they_touch():
    torch.manual_seed(0)
    positions = torch.randn(2, 10, 4)  # The first clip has 4 positions, the rest is noise.
    pooled = pool_spans(
        positions,
        torch.tensor([4, 10]),
        clips=torch.tensor([0, 0, 0, 1, 1]),
        starts=torch.tensor([0.0, 0.3, 1.0, 0.5, 0.0]),
        ends=torch.tensor([1.0, 0.6, 1.0, 0.5, 0.05]),
    )
    expected = [positions[0, :4], positions[0, 1:3], positions[0, 3:4], positions[1, 5:6], positions[1, :1]]
    torch.testing.assert_close(pooled, torch.stack([rows.mean(dim=0) for rows in expected]))
