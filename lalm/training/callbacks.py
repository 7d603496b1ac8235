"""What a person sees of a run: a progress bar (plain lines where there is no terminal), the CSV file, TensorBoard and
Weights & Biases."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from lalm.errors import MissingPackageError
from lalm.recipe.schema import Recipe
from lalm.training.metrics import MetricsFile
from lalm.training.plots import smoothed

RATE_WINDOW_STEPS = 20
"""Throughput, time left and the shown loss are over this many last steps."""


def say(console: Console, text: str) -> None:
    """One message as it is: no markup is read out of it, and no line is broken."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class StageLog(TrainerCallback):
    """Writes the CSV rows of one stage and shows its progress. Works in the first process only.

    Args:
        first_step: optimizer steps of the stages before this one.
        every_steps: a plain line is printed that often where `console` is no terminal.
    """

    def __init__(self, stage: str, first_step: int, metrics: MetricsFile, console: Console, *, every_steps: int):
        self.stage, self.first_step, self.metrics = stage, first_step, metrics
        self.console, self.every_steps = console, every_steps
        self.last_loss: float | None = None
        self._recent: list[dict[str, float]] = []
        self._step_start = 0.0
        self._progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.metrics.rewind(self.first_step + state.global_step)
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(
                self.stage, total=state.max_steps, completed=state.global_step, numbers=""
            )
            self._progress.start()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_start = self._step_start or time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        now = time.perf_counter()
        row = {**logs, "seconds": now - self._step_start, "step": state.global_step, "stage": self.stage}
        self._step_start = now
        self.last_loss = logs["loss"]
        self.metrics.add({**row, "global_step": self.first_step + state.global_step})
        self._recent = [*self._recent, row][-RATE_WINDOW_STEPS:]
        if self._progress is not None:
            self._progress.update(self._task, completed=state.global_step, numbers=self._numbers())
        elif state.global_step % self.every_steps == 0 or state.global_step in (1, state.max_steps):
            # Their median, as the first step waits for a compiler and others for a checkpoint to be written.
            left = (state.max_steps - state.global_step) * median(row["seconds"] for row in self._recent)
            say(
                self.console,
                f"{self.stage} {state.global_step}/{state.max_steps}  {self._numbers()}  {_clock(left)} left",
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Takes the progress bar off the terminal's last line, also after an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _numbers(self) -> str:
        seconds = max(self._sum("seconds"), 1e-9)
        rates = [value for name, value in self._recent[-1].items() if name.startswith("lr_")]
        return (
            f"loss {smoothed([row['loss'] for row in self._recent], 0.8)[-1]:.4f}  "
            f"lr {' '.join(f'{rate:.1e}' for rate in rates)}  {self._sum('records') / seconds:.1f} records/s  "
            f"{self._sum('audio_seconds') / seconds:.0f} audio-s/s  {self._sum('positions') / seconds:.0f} positions/s"
        )

    def _sum(self, name: str) -> float:
        return sum(row[name] for row in self._recent)


class TensorBoardLog(TrainerCallback):
    """The numbers of `metrics.csv` as TensorBoard scalars over the run's global step."""

    def __init__(self, folder: Path, first_step: int):
        self.folder, self.first_step = folder, first_step
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self.first_step + state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if self._writer is not None and logs and "loss" in logs:
            for name, value in logs.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"train/{name}", value, self.first_step + state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WandbLog(TrainerCallback):
    """The numbers of `metrics.csv` as one Weights & Biases run over the run's global step, whatever stages and resumes
    it has. `WANDB_MODE=offline` keeps it on this machine, in the run folder."""

    def __init__(self, recipe: Recipe, folder: Path, first_step: int):
        self.recipe, self.folder, self.first_step = recipe, folder, first_step
        self._run: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            place = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "lalm"),
                name=self.recipe.name,
                id=place,
                resume="allow",
                dir=str(self.folder),
                config=self.recipe.model_dump(mode="json"),
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if self._run is not None and logs and "loss" in logs:
            numbers = {f"train/{name}": value for name, value in logs.items() if isinstance(value, (int, float))}
            self._run.log(numbers, step=self.first_step + state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


def has_tensorboard() -> bool:
    """Whether TensorBoard can be written."""
    return importlib.util.find_spec("tensorboard") is not None


def check_loggers(recipe: Recipe) -> None:
    """Raises `MissingPackageError` if the recipe logs to Weights & Biases and it is not installed."""
    if "wandb" in recipe.output.log_to and importlib.util.find_spec("wandb") is None:
        raise MissingPackageError("wandb", "output.log_to: wandb", "wandb")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
