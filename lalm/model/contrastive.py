"""Contrastive alignment: the pooled audio vectors of a clip, or of a span of it, must be nearest to their own text.

No decoder pass is needed, so that a projector learns to speak the language model's words in a minute. Source: InfoNCE
(arXiv 1807.03748), in one direction or in both as CLAP (arXiv 2206.04769; equations 3 to 5 of the survey of
audio-language models, arXiv 2501.15177); the text side is the decoder's frozen embedding table.

With several processes each clip is compared with the texts, and each text with the clips, of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, distributed, nn

TEMPERATURE = 0.07


@dataclass(frozen=True)
class Pairs:
    """Clips and the texts among which each must find its own."""

    audio: Tensor
    """`[N, D]`, pooled audio vectors."""
    texts: Tensor
    """`[C, D]`, text embeddings, each text of a group once."""
    groups: Tensor
    """`[N]`; a clip is compared with texts of its group only."""
    text_groups: Tensor
    """`[C]`."""
    targets: Tensor
    """`[N]`, the text that is right."""
    keys: Tensor
    """`[C]`, a number by which a text is known in every process."""


def contrastive_loss(
    pairs: Pairs,
    *,
    temperature: float = TEMPERATURE,
    both: bool = False,
    num_items: Tensor | float | None = None,
    first_own: int = 0,
    num_own: int | None = None,
) -> Tensor:
    """Cross-entropy of each clip over the texts of its own group, by cosine similarity; summed, then divided.

    With `both`, half of that and half of each text's cross-entropy over the clips; other clips of the same text are no
    rivals of the one it stands beside.

    Args:
        num_items: what the sum is divided by; the number of clips by default.
        first_own, num_own: the clips of this process, where the others' stand beside them. The value is that of the own
            clips; its gradient that of the whole sum, so that values and gradients of all processes add up to those
            of one process that holds all clips.
    """
    if len(pairs.targets) == 0:
        return pairs.audio.sum() * 0.0
    audio, texts = (nn.functional.normalize(side, dim=-1) for side in (pairs.audio, pairs.texts))
    similarity = audio @ texts.T / temperature
    rival = pairs.groups[:, None] == pairs.text_groups[None, :]
    rows = nn.functional.cross_entropy(similarity.masked_fill(~rival, -torch.inf), pairs.targets, reduction="none")
    if both:
        # Row i: the text of clip i, against every clip j.
        of_text = similarity[:, pairs.targets].T
        same_text = pairs.targets[:, None] == pairs.targets[None, :]
        itself = torch.eye(len(pairs.targets), dtype=torch.bool, device=same_text.device)
        rival = (pairs.groups[:, None] == pairs.groups[None, :]) & (~same_text | itself)
        order = torch.arange(len(pairs.targets), device=same_text.device)
        backwards = nn.functional.cross_entropy(of_text.masked_fill(~rival, -torch.inf), order, reduction="none")
        rows = (rows + backwards) / 2
    own = rows if num_own is None else rows[first_own : first_own + num_own]
    total = rows.sum() + (own.sum() - rows.sum()).detach()
    return total / (len(own) if num_items is None else num_items)


def gather_pairs(pairs: Pairs) -> tuple[Pairs, int, int]:
    """The pairs of all processes, each text once; the first of this process's clips, and how many it has.

    Gradients reach this process's clips alone. A collective call: every process makes it in every micro-batch.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return pairs, 0, len(pairs.targets)
    own_keys = pairs.keys[pairs.targets]
    audio, groups, wanted = (_gather(tensor) for tensor in (pairs.audio.detach(), pairs.groups, own_keys))
    texts, keys, text_groups = (torch.cat(_gather(t)) for t in (pairs.texts, pairs.keys, pairs.text_groups))
    rank = distributed.get_rank()
    first = sum(len(part) for part in audio[:rank])
    audio[rank] = pairs.audio
    unique, places = keys.unique(return_inverse=True)
    chosen = torch.empty_like(unique).scatter_(0, places, torch.arange(len(keys), device=keys.device))
    whole = replace(
        pairs,
        audio=torch.cat(audio),
        texts=texts[chosen],
        groups=torch.cat(groups),
        text_groups=text_groups[chosen],
        targets=torch.searchsorted(unique, torch.cat(wanted)),
        keys=unique,
    )
    return whole, first, len(own_keys)


def _gather(tensor: Tensor) -> list[Tensor]:
    """A tensor `[n, ...]` of every process, n its own; without gradients."""
    world = distributed.get_world_size()
    size = torch.tensor([len(tensor)], device=tensor.device)
    sizes = [torch.zeros_like(size) for _ in range(world)]
    distributed.all_gather(sizes, size)
    longest = max(int(item) for item in sizes)
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor.detach()
    parts = [torch.zeros_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded)
    return [part[: int(count)] for part, count in zip(parts, sizes, strict=True)]


def mean_rows(rows: Tensor, lengths: Tensor) -> Tensor:
    """`rows [C, K, D]`, of which the first `lengths [C]` are real -> their means `[C, D]`."""
    is_real = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]
    return (rows * is_real[..., None]).sum(dim=1) / lengths.clamp(min=1)[:, None]


def pool_spans(positions: Tensor, num_positions: Tensor, clips: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Means of `positions [B, A, D]` over spans `[N]` of clips, `[N, D]`.

    A span lies between two shares of its clip's `num_positions [B]`; every position that it touches counts, and at
    least one.
    """
    counts = num_positions[clips]
    first = torch.minimum((starts * counts).floor().long(), counts - 1)
    last = torch.maximum((ends * counts).ceil().long(), first + 1)
    index = torch.arange(positions.shape[1], device=positions.device)
    inside = (index >= first[:, None]) & (index < last[:, None])
    return (positions[clips].float() * inside[..., None]).sum(dim=1) / inside.sum(dim=1)[:, None]
