"""Audio-text matching against NumPy in float64: the negatives that are mined, and equation 14."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
import torch

from lalm.model.contrastive import Pairs
from lalm.model.matching import MatchingHead, hardest_texts, matching_loss


@pytest.fixture
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(3)
    return Pairs(
        audio=torch.randn(4, 6, generator=generator, dtype=torch.float64).requires_grad_(),
        texts=torch.randn(5, 6, generator=generator, dtype=torch.float64),
        groups=torch.tensor([0, 0, 0, 1]),
        text_groups=torch.tensor([0, 0, 0, 0, 1]),
        targets=torch.tensor([1, 1, 3, 4]),
        keys=torch.arange(5),
    )


@pytest.fixture
def head() -> MatchingHead:
    torch.manual_seed(5)
    return MatchingHead(6, hidden_size=7).double()


def unit(vector):
    return vector / np.linalg.norm(vector)


def score(head, audio, text) -> float:
    """S(z_a, z_t): the head written out, GELU by the error function."""
    values = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    joined = np.concatenate([unit(audio), unit(text), unit(audio) * unit(text)])
    hidden = values["layers.0.weight"] @ joined + values["layers.0.bias"]
    hidden = np.array([x * (1 + erf(x / np.sqrt(2))) / 2 for x in hidden])
    return 1 / (1 + np.exp(-(values["layers.2.weight"] @ hidden + values["layers.2.bias"])[0]))


def twin(pairs, head) -> np.ndarray:
    audio, texts = pairs.audio.detach().numpy(), pairs.texts.numpy()
    rows = []
    for i, (group, target) in enumerate(zip(pairs.groups.tolist(), pairs.targets.tolist(), strict=True)):
        terms = [-np.log(score(head, audio[i], texts[target]))]
        wrong = [j for j, of in enumerate(pairs.text_groups.tolist()) if of == group and j != target]
        if wrong:
            hardest = max(wrong, key=lambda j: unit(audio[i]) @ unit(texts[j]))
            terms.append(-np.log(1 - score(head, audio[i], texts[hardest])))
        rows.append(np.mean(terms))
    return np.array(rows)


def test_equals_numpy(pairs, head):
    rows = twin(pairs, head)
    assert matching_loss(pairs, head).item() == pytest.approx(rows.mean(), rel=1e-12)
    assert matching_loss(pairs, head, num_items=9).item() == pytest.approx(rows.sum() / 9, rel=1e-12)
    own = matching_loss(pairs, head, num_items=9, first_own=1, num_own=2)
    assert own.item() == pytest.approx(rows[1:3].sum() / 9, rel=1e-12)


def test_the_hardest_wrong_text_is_the_one_most_like_the_clip(pairs):
    pairs.texts[2] = 5 * pairs.audio[0].detach()
    pairs.texts[0] = 2 * pairs.audio[2].detach()
    wrong, has_wrong = hardest_texts(pairs)
    assert wrong[[0, 2]].tolist() == [2, 0]
    assert has_wrong.tolist() == [True, True, True, False]


def test_without_clips_the_head_is_still_used(pairs, head):
    empty = torch.zeros(0, dtype=torch.long)
    none = Pairs(torch.zeros(0, 6, dtype=torch.float64, requires_grad=True), pairs.texts, empty, pairs.text_groups,
                 empty, pairs.keys)  # fmt: skip
    loss = matching_loss(none, head, num_items=1)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())
