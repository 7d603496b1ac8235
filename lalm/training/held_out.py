"""The loss on held-out records during a stage, and the end of a stage that no longer improves on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lalm.data.dataset import MicroBatchDataset
from lalm.recipe.schema import StageSection
from lalm.training.batches import to_device
from lalm.training.items import count_items
from lalm.training.metrics import read_metrics

HELD_OUT = "held_out_loss"


class HeldOutLoss(TrainerCallback):
    """Measures every `evaluate_every_steps` and stops the stage after `stop_after` measurements without improvement.

    Every process measures all held-out batches, so that all come to the same decision. What was measured before a
    resume is read back from the metrics file.
    """

    def __init__(self, stage: StageSection, batches: MicroBatchDataset, metrics_file: Path):
        self.stage, self.batches, self.metrics_file = stage, batches, metrics_file
        self.measured: dict[int, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.recall(state.global_step)

    def recall(self, step: int) -> None:
        """Reads what was measured up to a step of the stage."""
        self.measured = {
            row["step"]: row[HELD_OUT]
            for row in read_metrics(self.metrics_file)
            if row["stage"] == self.stage.name and row["step"] <= step and row.get(HELD_OUT) is not None
        }

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        if state.global_step % self.stage.evaluate_every_steps == 0 or state.global_step == state.max_steps:
            self.measured[state.global_step] = held_out_loss(model, self.batches)
            if self.is_over:
                control.should_training_stop = control.should_save = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs and state.global_step in self.measured:
            logs[HELD_OUT] = self.measured[state.global_step]

    @property
    def is_over(self) -> bool:
        """Whether the loss has not fallen for `stop_after` measurements."""
        if self.stage.stop_after is None or not self.measured:
            return False
        losses = [self.measured[step] for step in sorted(self.measured)]
        return len(losses) - 1 - losses.index(min(losses)) >= self.stage.stop_after


@torch.no_grad()
def held_out_loss(model: Any, batches: MicroBatchDataset) -> float:
    """The stage's own loss over all batches, as if they were one; nothing random takes part."""
    items = [batches[number] for number in range(len(batches))]
    totals: dict[str, float] = {}
    for batch in items:
        for name, count in count_items(batch).items():
            totals[name] = totals.get(name, 0.0) + count
    divisor: float | Mapping[str, float] = {name: max(count, 1e-9) for name, count in totals.items()}
    if set(totals) == {"language_model"}:
        divisor = totals["language_model"]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = sum(float(model(**to_device(batch, device), num_items_in_batch=divisor)["loss"]) for batch in items)
    model.train(was_training)
    return total
