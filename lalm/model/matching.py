"""Audio-text matching: a binary head tells a clip's own text from the wrong text that is most like the clip.

Source: equation 14 of the survey of audio-language models (arXiv 2501.15177), as binary cross-entropy; hard negatives
by contrastive similarity as in ALBEF (arXiv 2107.07651) and BLIP-2 (arXiv 2301.12597), but always the hardest, not
one drawn: nothing random stands in the way of an exact resume.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lalm.model.contrastive import Pairs


class MatchingHead(nn.Module):
    """Audio and text vectors `[n, D]` -> a logit `[n]` that is positive where they belong together."""

    def __init__(self, width: int, hidden_size: int = 256):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 * width, hidden_size), nn.GELU(), nn.Linear(hidden_size, 1))

    def forward(self, audio: Tensor, texts: Tensor) -> Tensor:
        audio, texts = nn.functional.normalize(audio, dim=-1), nn.functional.normalize(texts, dim=-1)
        return self.layers(torch.cat([audio, texts, audio * texts], dim=-1))[:, 0]


@torch.no_grad()
def hardest_texts(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """For each clip the wrong text of its group with the largest cosine `[N]`, and whether there is one `[N]`."""
    audio, texts = (nn.functional.normalize(side, dim=-1) for side in (pairs.audio, pairs.texts))
    similarity = audio @ texts.T
    is_wrong = pairs.groups[:, None] == pairs.text_groups[None, :]
    is_wrong = is_wrong & (torch.arange(len(pairs.texts), device=audio.device)[None, :] != pairs.targets[:, None])
    return similarity.masked_fill(~is_wrong, -torch.inf).argmax(dim=1), is_wrong.any(dim=1)


def matching_loss(
    pairs: Pairs,
    head: nn.Module,
    *,
    num_items: Tensor | float | None = None,
    first_own: int = 0,
    num_own: int | None = None,
) -> Tensor:
    """Binary cross-entropy: of each clip, the mean of its right and its hardest wrong text; summed, then divided.

    A clip whose group holds no wrong text counts its right one alone.

    Args:
        num_items: what the sum is divided by; the number of clips by default.
        first_own, num_own: the clips of this process, see `contrastive.gather_pairs`; the others' lend their texts.
    """
    count = len(pairs.targets) - first_own if num_own is None else num_own
    own = slice(first_own, first_own + count)
    if count == 0:
        blank = pairs.audio.new_zeros(1, pairs.texts.shape[1])
        return head(blank, blank).sum() * 0.0 + pairs.audio.sum() * 0.0
    wrong, has_wrong = hardest_texts(pairs)
    audio, wrong, has_wrong = pairs.audio[own], wrong[own], has_wrong[own].to(pairs.audio.dtype)
    # One call of the head: under ZeRO-3 a module runs equally often in every process.
    logits = head(torch.cat([audio, audio]), torch.cat([pairs.texts[pairs.targets[own]], pairs.texts[wrong]]))
    right, mistaken = logits.chunk(2)
    positive = nn.functional.softplus(-right)
    negative = nn.functional.softplus(mistaken) * has_wrong
    rows = (positive + negative) / (1 + has_wrong)
    return rows.sum() / (count if num_items is None else num_items)
