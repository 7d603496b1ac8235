"""Our side of a measurement: a recipe through the same functions as `lalm train`, step by step.

The first entry that is reported is the preparation (clips are read and encoded, batches planned), which belongs to the
first epoch; each further one is an optimizer step, from the fetching of its records to the end of the optimizer.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from rich.console import Console
from transformers import TrainerCallback

from lalm.bench.flops import Cost, decoder_cost, encoder_flops, head_cost, linear_cost, qformer_cost
from lalm.bench.full_vocabulary import full_vocabulary_loss
from lalm.bench.machine import forget_peak, synchronize
from lalm.bench.parts import PartTimer
from lalm.bench.sizes import Audio, Sizes, Switches, bench_recipe
from lalm.bench.workload import SAMPLE_RATE_HZ, Workload, clip_samples, needed_work, useful_decoder_work, write_workload
from lalm.data.dataset import StageData, build_stage_data
from lalm.data.mixture import QUESTIONS_PER_CLIP
from lalm.model.build import build_model
from lalm.model.compiled_layers import compile_layers, why_not_compiled
from lalm.model.grouped_attention import attend_in_tiles
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.model.tiled_groups import has_tiles, why_no_kernel
from lalm.recipe.projectors import QFormerSection
from lalm.recipe.schema import Recipe
from lalm.training.batches import NamedBatches, fill_state_cache, open_clip_store
from lalm.training.distributed import join_processes
from lalm.training.stages import enter_stage
from lalm.training.trainer import NOT_FOR_THE_MODEL, LalmTrainer, training_arguments


class Pace(Protocol):
    """Says when a side may go on, and takes what it measured."""

    def wait(self) -> None:
        """Returns when the next piece may start."""

    def done(self, result: dict[str, Any]) -> None:
        """Takes the result of the piece."""


@dataclass(frozen=True)
class OurRun:
    """One run of ours."""

    sizes: Sizes
    workload: Workload
    audio: Audio = "salmonn"
    second_encoder: bool = False
    switches: Switches = field(default_factory=Switches)
    batch_records: int = 8
    epochs: int = 2
    micro_batch_tokens: int = 2048

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; the last may reach into the next."""
        return -(-self.workload.num_records // self.batch_records)


def run_ours(run: OurRun, pace: Pace) -> None:
    """Trains, reporting every piece to `pace`. Uses a cache folder of its own, which is empty at first."""
    with tempfile.TemporaryDirectory(prefix="lalm-bench-") as name:
        folder = Path(name)
        before = os.environ.get("LALM_CACHE")
        os.environ["LALM_CACHE"] = str(folder / "cache")
        try:
            _run_in(folder, run, pace)
        finally:
            os.environ.pop("LALM_CACHE")
            if before is not None:
                os.environ["LALM_CACHE"] = before


def _run_in(folder: Path, run: OurRun, pace: Pace) -> None:
    write_workload(folder, run.workload)
    recipe = bench_recipe(
        run.sizes,
        folder,
        audio=run.audio,
        second_encoder=run.second_encoder,
        switches=run.switches,
        batch_records=run.batch_records,
        epochs=run.epochs,
        micro_batch_tokens=run.micro_batch_tokens,
    )
    transformers.utils.logging.set_verbosity_error()
    state = join_processes()
    model, processor = build_model(recipe)
    if not run.switches.supervised_only:
        model.sequence_loss = full_vocabulary_loss
    timer = PartTimer()
    timer.watch_model(model)

    pace.wait()
    started = time.perf_counter()
    clips = open_clip_store(recipe, processor)
    timer.watch_inputs(clips, processor)
    cache = fill_state_cache(recipe, [0], model, processor, clips, state, Console(quiet=True))
    stage = recipe.stages[0]
    enter_stage(model, stage)
    data = build_stage_data(recipe, 0, processor, clips, cache, in_one_row=model.packs_in_one_row)
    synchronize()
    prepared = {"kind": "prepare", "seconds": time.perf_counter() - started}
    seconds, work = timer.take()
    batches = NamedBatches(data, clips)
    prepared |= {"compile_seconds": compile_ahead(run, model, batches)}
    timer.end_step()
    timer.take()
    pace.done(prepared | {"parts": seconds, "work": work} | _facts(recipe, run, model, data))

    args = training_arguments(
        recipe,
        stage,
        folder / "stage",
        num_steps=data.plan.num_steps,
        micro_batches=data.plan.gradient_accumulation_steps,
        seed=recipe.seed,
    )
    args.save_strategy = "no"
    steps = StepReports(pace, timer, run.batch_records)
    trainer = LalmTrainer(model, args, stage=stage, train_dataset=batches, keep_checkpoints=1, callbacks=[steps])
    timer.watch_backward(trainer.accelerator)
    trainer.train()


def compile_ahead(run: OurRun, model: LalmForConditionalGeneration, batches: NamedBatches) -> float:
    """Compiles the decoder's attention and layers by passes over batches of each number of rows, where this run does.

    Returns the seconds that it took.

    A training of thousands of steps does so once; an epoch of four steps would measure little else.
    """
    decoder = model.language_model
    if not (run.sizes.compiles and run.switches.compiled and why_not_compiled(decoder) is None):
        return 0.0
    started = time.perf_counter()
    attend_in_tiles(decoder, wanted=has_tiles(decoder) and why_no_kernel() is None)
    compile_layers(decoder)
    model.train()
    seen: set[int] = set()
    for number in range(len(batches)):
        inputs = {name: value for name, value in batches[number].items() if name not in NOT_FOR_THE_MODEL}
        if (num_rows := len(inputs["input_ids"])) not in seen:
            seen.add(num_rows)
            model(**inputs).loss.backward()
    model.zero_grad(set_to_none=True)
    forget_peak()
    return time.perf_counter() - started


class StepReports(TrainerCallback):
    """Reports every step of a Trainer, from the end of the one before it: fetching the records belongs to it."""

    def __init__(self, pace: Pace, timer: PartTimer | None, batch_records: int):
        self.pace, self.timer, self.batch_records = pace, timer, batch_records
        self.started = 0.0
        self.result: dict[str, Any] = {}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.pace.wait()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        synchronize()
        self.result = {
            "kind": "step",
            "seconds": time.perf_counter() - self.started,
            "records": self.batch_records,
        }
        if self.timer is not None:
            self.timer.end_step()
            seconds, work = self.timer.take()
            self.result |= {"parts": seconds, "work": work}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Comes right after the step, with its loss."""
        if logs is None or "loss" not in logs:
            return
        self.pace.done(self.result | {"loss": logs["loss"]})
        if state.global_step < state.max_steps:
            self.pace.wait()
            self.started = time.perf_counter()


def _facts(recipe: Recipe, run: OurRun, model: LalmForConditionalGeneration, data: StageData) -> dict[str, Any]:
    """What one epoch needs, in tokens and operations, and how the frozen weights are held."""
    seconds = [samples / SAMPLE_RATE_HZ for samples in clip_samples(run.workload)]
    work = needed_work(data.examples, sum(seconds))
    clip_positions = {
        example.clips: sum(end - start for start, end in example.audio_spans) for example in data.examples
    }
    positions = sum(clip_positions.values())
    flops = useful_flops(recipe, run, data, positions, model.audio_tower.width)
    return {
        **asdict(work),
        "flops": {part: asdict(cost) for part, cost in flops.items()},
        "encoder_flops": sum(encoder_flops(run.sizes, clip, second_encoder=run.second_encoder) for clip in seconds),
        "dtype": str(model.get_input_embeddings().weight.dtype).removeprefix("torch."),
        "micro_batches": data.plan.gradient_accumulation_steps,
        "num_threads": torch.get_num_threads(),
    }


def useful_flops(recipe: Recipe, run: OurRun, data: StageData, audio_positions: int, width: int) -> dict[str, Cost]:
    """Operations that one warm epoch needs, by part: each clip is projected once for each group of its questions.

    `audio_positions`: of all clips together.
    """
    sizes = run.sizes.language_model
    tokens, pairs = useful_decoder_work(data.examples)
    groups = -(-run.workload.questions_per_clip // QUESTIONS_PER_CLIP)
    if isinstance(recipe.projector, QFormerSection):
        queries = recipe.projector.queries
        projector = qformer_cost(
            run.sizes.qformer,
            num_windows=groups * audio_positions // queries,
            window_steps=recipe.projector.window_steps or 0,
            queries=queries,
            encoder_width=width,
            decoder_width=sizes["hidden_size"],
        )
    else:
        projector = linear_cost(
            num_positions=groups * audio_positions, encoder_width=width, decoder_width=sizes["hidden_size"]
        )
    return {
        "projector": projector,
        "decoder": decoder_cost(sizes, num_tokens=tokens, num_pairs=pairs, lora_rank=run.sizes.lora_rank),
        "head": head_cost(sizes, sum(example.num_supervised for example in data.examples)),
    }
