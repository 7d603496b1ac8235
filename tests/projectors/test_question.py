"""A projector that reads the question: the question changes the positions, its padding does not."""

from __future__ import annotations

import pytest
import torch

from lalm.projectors import build_projector
from lalm.recipe.projectors import QFormerSection

SECTION = QFormerSection(
    window_steps=4,
    queries=2,
    num_layers=2,
    hidden_size=16,
    num_heads=2,
    intermediate_size=32,
    dropout=0.0,
    reads_question=True,
)


def asked(question, lengths):
    torch.manual_seed(0)
    projector = build_projector(SECTION, 24, 16).eval()
    states = torch.randn(len(question), 8, 24)
    return projector(states, torch.full((len(question),), 8), question, torch.tensor(lengths))[0]


def test_another_question_gives_other_positions_in_every_window():
    torch.manual_seed(1)
    question = torch.randn(1, 3, 16)
    first, second = asked(question, [3]), asked(-question, [3])
    assert ((first - second).abs().amax(dim=-1) > 1e-4).all()


def test_the_order_of_its_words_counts():
    torch.manual_seed(1)
    question = torch.randn(1, 3, 16)
    assert not torch.allclose(asked(question, [3]), asked(question.flip(1), [3]), atol=1e-5)


def test_what_stands_behind_a_question_is_not_read():
    torch.manual_seed(1)
    question = torch.randn(1, 5, 16)
    noisy = question.clone()
    noisy[:, 2:] = 100 * torch.randn(1, 3, 16)
    torch.testing.assert_close(asked(question, [2]), asked(noisy, [2]))


def test_a_missing_question_is_refused():
    with pytest.raises(ValueError, match=r"reads the question \(projector.reads_question\), but none was given"):
        build_projector(SECTION, 24, 16)(torch.randn(1, 8, 24), torch.tensor([8]))
