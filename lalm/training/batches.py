"""What the stages train on: clips, the cache of encoder states (filled once), and the micro-batches of each stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from rich.console import Console
from torch.utils.data import Dataset

from lalm.data.cache import StateCache
from lalm.data.clips import ClipStore
from lalm.data.dataset import StageData
from lalm.data.encode import fill_cache
from lalm.data.examples import SourcedRecord, clip_paths, load_held_out, load_stage_records, open_clips
from lalm.data.sequences import Joined
from lalm.data.shards import streamed_sources
from lalm.data.state_cache import open_state_cache
from lalm.data.streaming import StreamedBatches
from lalm.errors import DataError, TrainingError
from lalm.recipe.schema import Recipe
from lalm.resources import cache_folder
from lalm.training.callbacks import say

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor


def check_data_present(recipe: Recipe) -> None:
    """Raises `DataError`, with the command that makes the data, if a file of records is missing."""
    missing = [
        path for source in recipe.data.sources.values() if not (path := recipe.data.folder / source.records).exists()
    ]
    if missing:
        how = (
            f"Make the data with: lalm data build {recipe.data.build}"
            if recipe.data.build
            else "Set data.folder to where the files are (they are named relative to it)."
        )
        raise DataError(f"{missing[0]}: no such file of records. {how}")


def open_clip_store(recipe: Recipe, processor: LalmProcessor, run: Path | None = None) -> ClipStore:
    """The recipe's clips; their lengths are remembered between runs, the unusable ones are listed in the run folder."""
    return open_clips(
        recipe,
        processor.sampling_rate,
        index_file=cache_folder() / "clips" / f"{processor.sampling_rate}.jsonl",
        quarantine_file=run / "quarantine.jsonl" if run else None,
    )


def fill_state_cache(
    recipe: Recipe,
    stages: Sequence[int],
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    clips: ClipStore,
    state: PartialState,
    console: Console,
) -> StateCache | None:
    """Encodes every clip of these stages once, in the first process; the others wait, and learn which are broken.

    None where the recipe's states cannot be kept.
    """
    cache = open_state_cache(recipe, model, processor)
    if cache is None:
        if processor.step_rule is not None:
            raise DataError(
                "how many positions a clip takes follows from its units (encoders.units.drop_repeats), which have to "
                "be kept, and this recipe's cannot be: its encoder was trained in the run that `init` names."
            )
        return None
    problem: Exception | None = None
    if state.is_main_process:
        heard = [index for index in stages if not streamed_sources(recipe, index)]
        paths = clip_paths(Joined([records_heard(recipe, index) for index in heard]))
        was_training = model.training
        model.eval()
        try:
            report = fill_cache(
                dict.fromkeys(paths),
                clips,
                processor,
                lambda inputs: model.encode_audio(**to_device(inputs, model.device)),
                cache,
                progress=console.is_terminal,
                report=lambda line: say(console, line),
            )
            if report.num_encoded:
                say(
                    console,
                    f"Encoded {report.num_encoded} clips in {report.wall_seconds:.0f} s; "
                    f"{report.num_already_stored} were there already.",
                )
        except Exception as error:
            problem = error
        model.train(was_training)
    if state.num_processes > 1:
        news = [dict(clips.quarantine), str(problem) if problem else None]
        broadcast_object_list(news)
        clips.quarantine.update(news[0])
        if news[1] and problem is None:
            raise TrainingError(f"the first process stopped: {news[1]}")
    if problem:
        raise problem
    cache.refresh()
    return cache


def records_heard(recipe: Recipe, index: int) -> Sequence[SourcedRecord]:
    """Records whose clips a stage needs: to train on, and to measure."""
    held_out = load_held_out(recipe, index) if recipe.stages[index].evaluate_every_steps is not None else ()
    return Joined([load_stage_records(recipe, index)[0], held_out])


def to_device(inputs: Any, device: torch.device) -> Any:
    """Tensors on a device, wherever they are in mappings and lists."""
    return _each_tensor(inputs, lambda tensor: tensor.to(device))


def pinned(inputs: Any) -> Any:
    """Tensors in memory from which a GPU copies several times faster, wherever they are in mappings and lists."""
    return _each_tensor(inputs, torch.Tensor.pin_memory)


def _each_tensor(inputs: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(inputs, torch.Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: _each_tensor(value, change) for name, value in inputs.items()}
    return [_each_tensor(item, change) for item in inputs] if isinstance(inputs, list) else inputs


class NamedBatches(Dataset):
    """The micro-batches of a stage, each with what is said of it: ids, tasks and sources of its records, the record of
    each position (`owners [R, L]`), the seconds of its distinct clips."""

    def __init__(self, data: StageData, clips: ClipStore):
        self.data, self.clips = data, clips

    def __len__(self) -> int:
        return len(self.data.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.data.dataset.micro_batch(index)
        examples = batch.examples
        seconds = batch.audio_seconds
        if seconds is None:
            seconds = sum(self.seconds(path) for path in {path for example in examples for path in example.clips})
        return {
            **batch.inputs,
            "record_ids": [example.record.id for example in examples],
            "tasks": [example.record.task for example in examples],
            "sources": [example.source for example in examples],
            "owners": batch.owners if batch.owners is None else torch.from_numpy(batch.owners),
            "audio_seconds": seconds,
        }

    def save_place(self, folder: Path, rank: int, step: int) -> None:
        """Writes into a checkpoint where a process is in its stream; of other stages the step says it all."""
        if isinstance(self.data.dataset, StreamedBatches):
            self.data.dataset.save_place(folder, rank, step)

    def seek(self, folder: Path, rank: int) -> None:
        """Goes on where `save_place` was called."""
        if isinstance(self.data.dataset, StreamedBatches):
            self.data.dataset.seek(folder, rank)

    def seconds(self, path: str) -> float:
        """Length of a clip; 0 for one that broke meanwhile."""
        info = self.clips.info(path)
        return info.num_samples / self.clips.sample_rate_hz if info else 0.0
