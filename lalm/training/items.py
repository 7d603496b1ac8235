"""What each objective of a micro-batch is a sum over, and is divided by over a whole optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IGNORED = -100


def count_items(batch: Mapping[str, Any]) -> dict[str, float]:
    """Objective -> supervised tokens (or the sum of their weights), clips that find their text, clips with a class.

    Label i is predicted at i - 1, so the first of a row is never counted.
    """
    counts: dict[str, float] = {}
    if batch.get("labels") is not None:
        is_used = batch["labels"][:, 1:] != IGNORED
        weights = batch.get("label_weights")
        counts["language_model"] = float(is_used.sum() if weights is None else weights[:, 1:][is_used].double().sum())
    items = batch.get("objective_items") or {}
    if "targets" in items:
        counts["contrastive"] = counts["matching"] = float(len(items["targets"]))
    if "class_targets" in items:
        counts["classification"] = float(len(items["class_targets"]))
    return counts
