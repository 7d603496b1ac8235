"""Where a step's loss comes from: its mean over the tokens of each task and source, and each objective's own value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lalm.model.loss import supervised_positions


class LossBreakdown:
    """Sums over the micro-batches of one optimizer step; the processes' sums are added when it is read.

    Args:
        tasks, sources: those of the stage, in the same order in every process; the loss of others is in no column.
        objectives: those of the stage; a single one is the loss itself and is not repeated.
    """

    def __init__(self, tasks: Sequence[str], sources: Sequence[str], objectives: Sequence[str]):
        self.objectives = list(objectives) if len(objectives) > 1 else []
        self.names = [f"loss/task/{name}" for name in tasks] + [f"loss/source/{name}" for name in sources]
        self._places = {name: place for place, name in enumerate(self.names)}
        self._reset()

    def _reset(self) -> None:
        self._sums = torch.zeros(2, len(self.names) + 1, dtype=torch.float64)  # The last holds the others.
        self._objective_sums = torch.zeros(len(self.objectives), dtype=torch.float64)

    @property
    def columns(self) -> list[str]:
        """Names of what `read` returns."""
        return [*self.names, *(f"loss/objective/{name}" for name in self.objectives)]

    def add(self, about: Mapping[str, Any], labels: Tensor | None, outputs: Any) -> None:
        """One micro-batch.

        Args:
            about: `tasks` and `sources` of its records, `owners [R, L]`: the record of each position.
            labels: `[R, L]`; None where nothing passed through the decoder.
            outputs: the model's; `token_losses [n]`, and `losses` by objective, each divided by the items of the step.
        """
        token_losses = outputs.get("token_losses")
        if token_losses is not None and labels is not None and about.get("owners") is not None and len(token_losses):
            is_used, _ = supervised_positions(labels)
            owners = torch.nn.functional.pad(about["owners"][:, 1:], (0, 1), value=-1)[is_used].cpu()
            values = token_losses.double().cpu()
            for kind, names in (("task", about["tasks"]), ("source", about["sources"])):
                columns = [self._places.get(f"loss/{kind}/{name}", len(self.names)) for name in names]
                places = torch.tensor(columns)[owners]
                self._sums[0].index_add_(0, places, values)
                self._sums[1].index_add_(0, places, torch.ones_like(values))
        losses = outputs.get("losses") or {}
        for place, name in enumerate(self.objectives):
            if name in losses:
                self._objective_sums[place] += float(losses[name])

    def read(self, accelerator: Any) -> dict[str, float]:
        """The means of the step over all processes, of what it held; starts anew. Every process takes part."""
        if not self.columns:
            return {}
        flat = torch.cat([self._sums[:, :-1].flatten(), self._objective_sums]).to(torch.float32).to(accelerator.device)
        flat = accelerator.reduce(flat, reduction="sum").cpu()
        self._reset()
        sums, counts = flat[: 2 * len(self.names)].view(2, -1)
        means = {
            name: float(total / count) for name, total, count in zip(self.names, sums, counts, strict=True) if count
        }
        parts = flat[2 * len(self.names) :].tolist()
        return means | {f"loss/objective/{name}": value for name, value in zip(self.objectives, parts, strict=True)}
