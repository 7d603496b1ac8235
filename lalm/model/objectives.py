"""The objectives of a stage in one forward pass: their sum, weighted, each divided by its own number of items.

The language_model loss comes from the decoder (`modeling`); contrastive, matching and classification read the pooled
audio of a clip and need no decoder. `ObjectiveHeads` holds what only training needs: it is given to the model when a
stage begins and taken away when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lalm.model.contrastive import TEMPERATURE, Pairs, contrastive_loss, gather_pairs, mean_rows, pool_spans
from lalm.model.matching import MatchingHead, matching_loss

WITH_TEXTS = ("contrastive", "matching")
"""Objectives that compare clips with candidate texts."""


class ObjectiveHeads(nn.Module):
    """Weights, heads and constants of a stage's objectives.

    Args:
        weights: objective -> its weight in the sum.
        decoder_width, encoder_width: D, E.
        embedding_centre: `[D]`, the mean of the embedding table, in which all embeddings share a large part.
        num_classes: of the classification head.
        head_input: `projector`: it reads the mean of a clip's positions; `encoder`: of its states (a linear probe).
    """

    embedding_centre: Tensor

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        decoder_width: int,
        encoder_width: int,
        embedding_centre: Tensor,
        num_classes: int = 0,
        head_input: str = "projector",
        temperature: float = TEMPERATURE,
        both_directions: bool = False,
    ):
        super().__init__()
        self.weights, self.head_input = dict(weights), head_input
        self.temperature, self.both_directions = temperature, both_directions
        self.register_buffer("embedding_centre", embedding_centre, persistent=False)
        self.matching = MatchingHead(decoder_width) if "matching" in weights else None
        width = encoder_width if head_input == "encoder" else decoder_width
        self.classification = nn.Linear(width, num_classes) if "classification" in weights else None

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum that is trained on."""
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()


def alignment_losses(
    heads: ObjectiveHeads,
    positions: tuple[Tensor, Tensor],
    summaries: Tensor | None,
    states: tuple[Tensor, Tensor],
    candidate_vectors: Tensor | None,
    items: Mapping[str, Any],
    num_items: Mapping[str, Tensor | float],
) -> dict[str, Tensor]:
    """The losses of all objectives but language_model.

    Args:
        positions: `[clips, A, D]` with zeros behind the real ones, and how many are real `[clips]`.
        summaries: `[clips, D]`, a position of each clip that has weights of its own; what is asked of a whole clip is
            asked of it too, and the contrastive loss is the sum of both.
        states: `[clips, T, E]` and steps `[clips]`.
        candidate_vectors: `[C, K, D]`, embeddings of the candidate texts; None without contrastive and matching.
        items: from the data: `audio_rows`, `span_starts`, `span_ends [N]` (see `pool_spans`); `candidate_lengths`,
            `candidate_groups`, `candidate_keys [C]`, `groups`, `targets [N]`; `class_rows`, `class_targets [M]`.
        num_items: what each objective is divided by; its own items by default.
    """
    losses: dict[str, Tensor] = {}
    pooled = _pooled(*positions)
    if candidate_vectors is not None:
        texts = mean_rows(candidate_vectors.float(), items["candidate_lengths"]) - heads.embedding_centre
        pairs = Pairs(
            audio=pool_spans(*positions, items["audio_rows"], items["span_starts"], items["span_ends"])
            - heads.embedding_centre,
            texts=texts.detach(),
            groups=items["groups"],
            text_groups=items["candidate_groups"],
            targets=items["targets"],
            keys=items["candidate_keys"],
        )
        gathered = gather_pairs(pairs)
        if "contrastive" in heads.weights:
            total = num_items.get("contrastive", len(pairs.targets))
            losses["contrastive"] = _contrastive(heads, gathered, total)
            if summaries is not None:
                whole = gather_pairs(_of_whole_clips(pairs, summaries, heads, items))
                losses["contrastive"] = losses["contrastive"] + _contrastive(heads, whole, total)
        if heads.matching is not None:
            everyones, first, count = gathered
            losses["matching"] = matching_loss(
                everyones, heads.matching, num_items=num_items.get("matching"), first_own=first, num_own=count
            )
    if heads.classification is not None:
        read = _pooled(*states) if heads.head_input == "encoder" else pooled
        losses["classification"] = classification_loss(
            heads.classification(read[items["class_rows"]]),
            items["class_targets"],
            num_items=num_items.get("classification"),
        )
    return losses


def _of_whole_clips(pairs: Pairs, summaries: Tensor, heads: ObjectiveHeads, items: Mapping[str, Any]) -> Pairs:
    """The pairs whose span is a whole clip, with its summary as the audio side."""
    whole = (items["span_starts"] <= 0) & (items["span_ends"] >= 1)
    audio = summaries[items["audio_rows"][whole]].float() - heads.embedding_centre
    return replace(pairs, audio=audio, groups=pairs.groups[whole], targets=pairs.targets[whole])


def _contrastive(heads: ObjectiveHeads, gathered: tuple[Pairs, int, int], num_items: Tensor | float) -> Tensor:
    pairs, first, count = gathered
    return contrastive_loss(
        pairs,
        temperature=heads.temperature,
        both=heads.both_directions,
        num_items=num_items,
        first_own=first,
        num_own=count,
    )


def classification_loss(logits: Tensor, targets: Tensor, *, num_items: Tensor | float | None = None) -> Tensor:
    """Cross-entropy of `logits [M, classes]` (equation 11 of arXiv 2501.15177); the mean, or a sum over `num_items`."""
    total = nn.functional.cross_entropy(logits, targets, reduction="sum") if len(targets) else logits.sum() * 0.0
    return total / (max(1, len(targets)) if num_items is None else num_items)


def _pooled(rows: Tensor, lengths: Tensor) -> Tensor:
    """Means `[clips, D]` over the real ones of `rows [clips, A, D]`, in float32."""
    return mean_rows(rows.float(), lengths)
