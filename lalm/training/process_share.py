"""The micro-batches of one process, made in a thread while the GPU works on those before."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from lalm.training.batches import NamedBatches, pinned
from lalm.training.distributed import uses_cpu


class ProcessShare(Dataset):
    """The micro-batches of one process: every `world_size`-th, as they are in order of step, accumulation, process.

    Args:
        ahead: how many items behind the one that is asked for are made in the meantime. They are made one after the
            other, in order, as a stream has to be read; a problem is raised when its item is asked for. Their tensors
            are pinned where there is a GPU, which then copies them several times faster.
    """

    def __init__(self, batches: Dataset, rank: int, world_size: int, *, ahead: int = 0):
        self.batches, self.rank, self.world_size, self.ahead = batches, rank, world_size, ahead
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") if ahead else None
        self._begun: dict[int, Future[dict[str, Any]]] = {}
        self._pins = bool(ahead) and torch.cuda.is_available()

    def __len__(self) -> int:
        return len(self.batches) // self.world_size  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._thread is None:
            return self._make(index)
        if index not in self._begun:
            self._forget()
        for number in range(index, min(index + 1 + self.ahead, len(self))):
            if number not in self._begun:
                self._begun[number] = self._thread.submit(self._make, number)
        return self._begun.pop(index).result()

    def save_place(self, folder: Path, step: int) -> None:
        """Writes into a checkpoint what it takes to go on with the data at `step`."""
        if isinstance(self.batches, NamedBatches):
            self.batches.save_place(folder, self.rank, step)

    def seek(self, folder: Path) -> None:
        """Goes on with the data where a checkpoint was written."""
        self._forget()
        if isinstance(self.batches, NamedBatches):
            self.batches.seek(folder, self.rank)

    def _make(self, index: int) -> dict[str, Any]:
        item = self.batches[index * self.world_size + self.rank]
        return pinned(item) if self._pins else item

    def _forget(self) -> None:
        """Gives up what was begun, and waits for what is being made."""
        wait([item for item in self._begun.values() if not item.cancel()])
        self._begun.clear()


def items_ahead(micro_batches: int) -> int:
    """A step's micro-batches where a GPU works meanwhile; none where the CPU trains, which has no time to spare."""
    return 0 if uses_cpu() else micro_batches
