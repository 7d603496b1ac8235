"""The contrastive loss against NumPy, and what reaches the projector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lalm.model.contrastive import TEMPERATURE, contrastive_loss, mean_embeddings, pool_spans


@pytest.fixture
def case():
    torch.manual_seed(0)
    return {
        "pooled_audio": torch.randn(5, 8, requires_grad=True),
        "candidates": torch.randn(7, 8),
        "groups": torch.tensor([0, 0, 1, 1, 1]),
        "candidate_groups": torch.tensor([0, 0, 0, 1, 1, 1, 1]),
        "targets": torch.tensor([2, 0, 3, 6, 6]),
    }


def twin(case) -> float:
    audio, text = (case[name].detach().double().numpy() for name in ("pooled_audio", "candidates"))
    total = 0.0
    for row, group, target in zip(audio, case["groups"].tolist(), case["targets"].tolist(), strict=True):
        scores = {
            index: row @ other / np.linalg.norm(row) / np.linalg.norm(other) / TEMPERATURE
            for index, (other, of) in enumerate(zip(text, case["candidate_groups"].tolist(), strict=True))
            if of == group
        }
        total += np.log(sum(np.exp(score) for score in scores.values())) - scores[target]
    return total


def test_equals_numpy(case):
    assert contrastive_loss(**case).item() == pytest.approx(twin(case) / 5, rel=1e-5)
    assert contrastive_loss(**case, num_items=20).item() == pytest.approx(twin(case) / 20, rel=1e-5)


def test_candidates_of_other_tasks_are_no_rivals(case):
    before = contrastive_loss(**case).item()
    case["candidates"][3:] = case["pooled_audio"][0].detach()
    rows = {**case, **{name: case[name][:2] for name in ("pooled_audio", "groups", "targets")}}
    changed = contrastive_loss(**rows).item()
    case["candidates"][3:] = torch.randn(4, 8)
    assert contrastive_loss(**rows).item() == pytest.approx(changed)
    assert before != changed


def test_mean_embeddings_pass_over_padding():
    table = torch.randn(10, 4)
    means = mean_embeddings(table, torch.tensor([[1, 2, 3], [5, 0, 0]]), torch.tensor([3, 1]))
    torch.testing.assert_close(means, torch.stack([table[[1, 2, 3]].mean(dim=0), table[5]]))


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
