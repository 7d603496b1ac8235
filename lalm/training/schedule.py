"""The learning rate over a stage, as a share of its peak: one global step, warm-up included."""

from __future__ import annotations

import math

from lalm.recipe.schema import StageSection


def share_of_peak(step: int, num_steps: int, stage: StageSection) -> float:
    """What the optimizer step `step` (from 0) of `num_steps` multiplies every peak learning rate by.

    The warm-up rises in equal parts and never trains at 0; then the rate stays, or falls to `min_lr_share` on a line
    or half a cosine.
    """
    if step < stage.warmup_steps:
        return (step + 1) / (stage.warmup_steps + 1)
    if stage.schedule == "constant":
        return 1.0
    done = min(1.0, (step - stage.warmup_steps) / max(1, num_steps - stage.warmup_steps))
    falling = 1.0 - done if stage.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return stage.min_lr_share + (1.0 - stage.min_lr_share) * falling
