"""`run_recipe`: everything between a recipe and a run folder. Stages are data; this is the one loop over them.

A run that was stopped goes on where it was: finished stages are skipped, an unfinished one resumes at its last
checkpoint, at the same losses as if it had never been stopped.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from accelerate.utils import gather_object
from rich.console import Console

from lalm.data.cache import StateCache
from lalm.data.clips import ClipStore
from lalm.data.dataset import StageData, build_stage_data
from lalm.errors import CheckpointError, RecipeError, TrainingError
from lalm.model.build import build_model
from lalm.model.checkpoint import is_run_folder, save_trained
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.processing.processor import LalmProcessor
from lalm.recipe.schema import Recipe, StageSection
from lalm.training import run_folder as folders
from lalm.training.batches import NamedBatches, check_data_present, fill_state_cache, open_clip_store
from lalm.training.breakdown import LossBreakdown
from lalm.training.callbacks import StageLog, TensorBoardLog, WandbLog, check_loggers, has_tensorboard, say
from lalm.training.checkpoints import TRAINED, average_trained, split_heads, write_json
from lalm.training.compiling import compile_decoder
from lalm.training.continuations import CONTINUATIONS, read_continuations, write_continuations
from lalm.training.deepspeed import announce_single_process, deepspeed_settings, go_without_cpu_kernel, leave_zero
from lalm.training.distributed import check_launcher, join_processes, tells_of_a_lost_process
from lalm.training.dry_run import print_plan
from lalm.training.fsdp import fsdp_settings
from lalm.training.held_out import HeldOutLoss
from lalm.training.metrics import MetricsFile, read_metrics
from lalm.training.plots import plot_loss
from lalm.training.run_folder import RunFolder
from lalm.training.stages import are_taken_back, describe, enter_stage, load_trained_tensors, part_names, widen
from lalm.training.start import load_start, resolve_start
from lalm.training.trainer import LalmTrainer, check_distribution, training_arguments

PLAN = "plan.json"
MEAN_OF_LAST = 20
"""The final loss that is reported of a stage is the mean over this many last steps."""
PLOT_AFTER_SECONDS = 20.0
"""loss.png is drawn at the end of a stage that took this long, and at the end of the run."""
Evaluate = Callable[[Path], Any]
"""Measures a finished run, given its folder; called in the first process."""


@dataclass
class _Run:
    """What the stages of one run share."""

    recipe: Recipe
    folder: RunFolder
    state: PartialState
    console: Console
    model: LalmForConditionalGeneration
    processor: LalmProcessor
    clips: ClipStore
    cache: StateCache | None
    allow_changes: Collection[str]


def run_recipe(
    recipe: Recipe,
    *,
    resume: bool = True,
    stage: str | None = None,
    from_stage: str | None = None,
    until: str | None = None,
    dry_run: bool = False,
    allow_changes: Collection[str] = (),
    evaluate: Evaluate | None = None,
    console: Console | None = None,
) -> Path:
    """Trains a recipe and returns its run folder.

    Args:
        resume: go on with what the folder holds; else the chosen stages are trained anew (all of them: a fresh run).
        stage: train this one only. `from_stage`, `until`: the first and last to train. Earlier ones must be done.
        dry_run: print the plan and a sample of each stage; load no weights, train and write nothing.
        allow_changes: dotted names of the recipe (or beginnings) in which it may differ from the one that the run was
            started with.
        evaluate: called with the folder when the last stage of the recipe is done.

    Raises:
        RecipeError: if a stage does not exist, or the recipe differs from the run's.
        CheckpointError: if `init` names no run that this one can start from.
        DataError: if the data is missing or too much of it is unusable.
        TrainingError: if the loss is no number, or the processes that were launched do not meet.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    check_launcher(wants_deepspeed=recipe.deepspeed is not None)
    if recipe.deepspeed is not None:
        go_without_cpu_kernel()
        announce_single_process()
    state = join_processes()
    console = console or Console()
    if not state.is_main_process:
        console = Console(file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    recipe = resolve_start(recipe)
    chosen = select_stages(recipe, stage=stage, from_stage=from_stage, until=until)
    check_loggers(recipe)
    check_data_present(recipe)
    _announce_dealing(recipe, state.num_processes, console)
    if dry_run:
        print_plan(recipe, chosen, state.num_processes, console)
        return recipe.run_folder()

    folder = RunFolder(recipe.run_folder())
    if state.is_main_process:
        _open_folder(folder, recipe, chosen, resume=resume, allow_changes=allow_changes)
    state.wait_for_everyone()
    todo = [index for index in chosen if not folder.is_done(recipe.stages[index].name)]
    for index in set(chosen) - set(todo):
        say(console, f"Stage {recipe.stages[index].name} is done already.")
    # A run that was stopped after its last step and before its model was written has no stage left, and is written now.
    if todo or not is_run_folder(folder.path):
        _train_stages(recipe, folder, todo, chosen[-1], state, console, allow_changes)
    state.wait_for_everyone()
    all_done = all(folder.is_done(section.name) for section in recipe.stages)
    if evaluate is not None and all_done and state.is_main_process:
        evaluate(folder.path)
    return folder.path


def select_stages(
    recipe: Recipe, *, stage: str | None = None, from_stage: str | None = None, until: str | None = None
) -> list[int]:
    """Indices of the stages to train.

    Raises:
        RecipeError: if a name is no stage, `stage` is given with another, or the range is empty.
    """
    names = [section.name for section in recipe.stages]
    for option, name in (("--stage", stage), ("--from", from_stage), ("--until", until)):
        if name is not None and name not in names:
            raise RecipeError(f"{option} {name}: no such stage. The recipe has: {', '.join(names)}.")
    if stage is not None:
        if from_stage or until:
            raise RecipeError("--stage trains one stage only: leave out --from and --until.")
        return [names.index(stage)]
    first = names.index(from_stage) if from_stage else 0
    last = names.index(until) if until else len(names) - 1
    if last < first:
        raise RecipeError(f"--from {from_stage} comes after --until {until}. The order is: {', '.join(names)}.")
    return list(range(first, last + 1))


def _open_folder(
    folder: RunFolder, recipe: Recipe, chosen: list[int], *, resume: bool, allow_changes: Collection[str]
) -> None:
    names = [section.name for section in recipe.stages]
    if not resume and len(chosen) == len(names):
        folders.start_over(folder)
    else:
        folders.check_recipe_unchanged(folder, recipe, allow_changes)
        folders.require_done(folder, names[: chosen[0]], names[chosen[0]])
        if not resume:
            folder.forget(names[chosen[0] :])
    folders.write_recipe(folder, recipe)


def _train_stages(
    recipe: Recipe,
    folder: RunFolder,
    todo: list[int],
    last: int,
    state: PartialState,
    console: Console,
    allow: Collection[str],
) -> None:
    """Trains `todo` and writes the model after stage `last`."""
    model, processor = _fresh_model(recipe)
    is_dealt_out = recipe.deepspeed is not None or fsdp_settings(recipe, state.num_processes) is not None
    clips = open_clip_store(recipe, processor, folder.path)
    cache = fill_state_cache(recipe, todo, model, processor, clips, state, console)
    run = _Run(recipe, folder, state, console, model, processor, clips, cache, allow)
    held = [*recipe.lineage(todo[0])] if todo else [*recipe.lineage(last), last]
    _load_finished(run, held)
    for index in todo:
        # ZeRO and FSDP leave hooks and slices behind that a second stage cannot take over; one that starts from an
        # earlier one must not see what was trained since.
        lineage = recipe.lineage(index)
        if index != todo[0] and (is_dealt_out or lineage != held):
            since, before = ([recipe.stages[i] for i in group] for group in (set(held) - set(lineage), lineage))
            if is_dealt_out or not are_taken_back(run.model, since, before):
                leave_zero()
                run.model, _ = _fresh_model(recipe)
            _load_finished(run, lineage)
        started = time.perf_counter()
        _train_stage(run, index)
        is_long = time.perf_counter() - started >= PLOT_AFTER_SECONDS
        if state.is_main_process and is_long and index != todo[-1]:
            plot_loss(folder.metrics_file, folder.loss_image)
        held = [*lineage, index]
    if is_dealt_out:
        leave_zero()
        run.model, _ = _fresh_model(recipe)
        _load_finished(run, held)
    if state.is_main_process:
        plot_loss(folder.metrics_file, folder.loss_image)
        run.model.end_objectives()
        run.model.set_lora_scale(1.0)
        save_trained(folder.path, run.model.eval(), processor, recipe, stage=recipe.stages[last].name)
        say(console, f"Saved to {folder.path}")


def _fresh_model(recipe: Recipe) -> tuple[LalmForConditionalGeneration, LalmProcessor]:
    """The model that the first stage starts with."""
    model, processor = build_model(recipe)
    load_start(model, recipe)
    return model, processor


def _load_finished(run: _Run, indices: Sequence[int]) -> None:
    """Puts what these stages trained into a fresh model, in their order."""
    for section in (run.recipe.stages[index] for index in indices):
        widen(run.model, section)
        names = part_names(run.model, section)
        load_trained_tensors(run.model, run.folder.stage_weights(section.name), names=names)


def _train_stage(run: _Run, index: int) -> None:
    section, folder, console = run.recipe.stages[index], run.folder.stage(run.recipe.stages[index].name), run.console
    started = time.perf_counter()
    run.model.activation_checkpointing_disable()
    data = build_stage_data(
        run.recipe,
        index,
        run.processor,
        run.clips,
        run.cache,
        world_size=run.state.num_processes,
        in_one_row=run.model.packs_in_one_row,
        continuations=_continuations(run, index, folder) if section.answers == "continued" else None,
    )
    counts = enter_stage(run.model, section, num_classes=len(data.classes), seed=run.recipe.seed + index)
    _announce(section, data, describe(counts), console)
    passes = data.plan.num_steps * data.plan.gradient_accumulation_steps
    compile_decoder(run.recipe, section, run.model.language_model, passes, console)
    checkpoint = run.folder.last_checkpoint(section.name)
    _check_plan(run, section, data, folder, resumed=checkpoint is not None)
    args = training_arguments(
        run.recipe,
        section,
        folder,
        num_steps=data.plan.num_steps,
        micro_batches=data.plan.gradient_accumulation_steps,
        seed=run.recipe.seed + index,
    )
    first_step = _steps_before(run, index)
    breakdown = LossBreakdown(
        data.examples.tasks,
        data.examples.sources,
        list(section.objective_weights()),
    )
    columns = [*breakdown.columns, *(f"grad_norm/{count.part}" for count in counts if count.num_trainable)]
    log = StageLog(
        section.name,
        first_step,
        MetricsFile(run.folder.metrics_file, columns),
        console,
        every_steps=section.log_every_steps,
    )
    held_out = None
    if data.held_out is not None:
        held_out = HeldOutLoss(section, data.held_out, run.folder.metrics_file)
    callbacks: list = [log] if held_out is None else [held_out, log]
    if "tensorboard" in run.recipe.output.log_to and has_tensorboard():
        callbacks.append(TensorBoardLog(run.folder.path / "tensorboard", first_step))
    if "wandb" in run.recipe.output.log_to:
        callbacks.append(WandbLog(run.recipe, run.folder.path / "wandb", first_step))
    trainer = LalmTrainer(
        run.model,
        args,
        stage=section,
        train_dataset=NamedBatches(data, run.clips),
        keep_checkpoints=run.recipe.output.keep_checkpoints,
        best_step=lambda: None if held_out is None else held_out.best_step,
        callbacks=callbacks,
        breakdown=breakdown,
        fsdp=run.recipe.fsdp if fsdp_settings(run.recipe, run.state.num_processes) else None,
    )
    check_distribution(trainer, wants_deepspeed=run.recipe.deepspeed is not None)
    if checkpoint is not None:
        say(console, f"Going on at {checkpoint.name}")
    try:
        if not _was_over(held_out, checkpoint):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RuntimeError as error:
        if tells_of_a_lost_process(error, run.state.num_processes):
            raise TrainingError(
                f"stage '{section.name}': another process of the run is gone ({str(error).splitlines()[0]}). "
                f"{_last_checkpoint(run, section)} Look at that process's output, then start the same command again."
            ) from error
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CheckpointError(f"{run.folder.path}: {_full_disk(run, section)}") from error
        raise
    finally:
        log.close()
    trainer.accelerator.free_memory()
    run.state.wait_for_everyone()
    if run.state.is_main_process:
        _finish_stage(
            run, section, data, time.perf_counter() - started, None if held_out is None else held_out.best_step
        )
    run.state.wait_for_everyone()
    if (section.keeps_best or section.average_with) and run.recipe.deepspeed is None and trainer.fsdp is None:
        _load_finished(run, [index])


def _continuations(run: _Run, index: int, folder: Path) -> dict[str, str]:
    """The targets of a stage of continued answers; the first process makes them, the others wait."""
    path = folder / CONTINUATIONS
    if run.state.is_main_process:
        write_continuations(
            run.recipe, index, run.model, run.processor, path, report=lambda line: say(run.console, line)
        )
    run.state.wait_for_everyone()
    return read_continuations(path)


def _was_over(held_out: HeldOutLoss | None, checkpoint: Path | None) -> bool:
    """Whether the checkpoint is the last of a stage that its held-out loss had ended."""
    if held_out is None or checkpoint is None:
        return False
    held_out.recall(int(checkpoint.name.rpartition("-")[2]))
    return held_out.is_over


def _full_disk(run: _Run, section: StageSection) -> str:
    return f"the disk is full. {_last_checkpoint(run, section)} Make room and start the same command again."


def _last_checkpoint(run: _Run, section: StageSection) -> str:
    last = run.folder.last_checkpoint(section.name)
    return f"The last whole checkpoint is {last}." if last else "The stage has no checkpoint yet."


def _finish_stage(run: _Run, section: StageSection, data: StageData, seconds: float, best_step: int | None) -> None:
    rows = [row for row in read_metrics(run.folder.metrics_file) if row["stage"] == section.name]
    last = [row["loss"] for row in rows[-MEAN_OF_LAST:]]
    folder = run.folder.stage(section.name)
    checkpoint = folder / f"checkpoint-{best_step}" if best_step else run.folder.last_checkpoint(section.name)
    split_heads(checkpoint / TRAINED, folder, data.classes)
    if section.average_with:
        others = [run.folder.stage_weights(name) for name in section.average_with]
        average_trained(folder / TRAINED, others)
        say(run.console, f"Averaged with {', '.join(section.average_with)}.")
    loss = sum(last) / len(last)
    num_steps = int(rows[-1]["step"])
    kept = [row for row in reversed(rows) if row["step"] <= (best_step or num_steps)]
    run.folder.mark_done(
        section.name,
        {
            "stage": section.name,
            "steps": num_steps,
            "planned_steps": data.plan.num_steps,
            "records": len(data.examples),
            "draws": num_steps * data.plan.batch_records,
            "dropped": len(data.dropped),
            "truncated": data.num_truncated,
            "loss": loss,
            "kept_step": best_step or num_steps,
            "held_out_loss": next((row["held_out_loss"] for row in kept if row["held_out_loss"]), None),
            "training_seconds": sum(row["seconds"] for row in rows),
            "wall_seconds": seconds,
        },
    )
    say(
        run.console,
        f"Stage {section.name}: {num_steps} steps in {seconds:.0f} s, loss {loss:.4f} (mean of the last {len(last)})",
    )


def _announce_dealing(recipe: Recipe, num_processes: int, console: Console) -> None:
    """Shows the settings of DeepSpeed or FSDP as they were made from the recipe."""
    for name, settings in (("DeepSpeed", deepspeed_settings(recipe)), ("FSDP", fsdp_settings(recipe, num_processes))):
        if settings is not None:
            say(console, f"{name}, {num_processes} process(es): {json.dumps(settings)}")
    if recipe.fsdp is not None and num_processes == 1:
        say(console, "FSDP: one process has nothing to deal out.")


def _announce(section: StageSection, data: StageData, parameters: str, console: Console) -> None:
    plan = data.plan
    say(
        console,
        f"Stage {section.name}: {len(data.examples)} records, {plan.num_steps} steps of {plan.batch_records} in "
        f"{plan.gradient_accumulation_steps} micro-batch(es). Trains {parameters}.",
    )
    if len(data.dropped):
        say(console, f"{len(data.dropped)} records are left out:\n{data.dropped.summary()}")
    if data.num_truncated:
        say(console, f"{data.num_truncated} answers are shortened to data.max_text_tokens.")


def _check_plan(run: _Run, section: StageSection, data: StageData, folder: Path, *, resumed: bool) -> None:
    """Refuses to go on with other batches than the checkpoint was trained on; keeps the plan's digest beside it.

    Raises:
        TrainingError: if the records or clips changed, or the processes disagree.
    """
    if run.state.num_processes > 1 and len(set(gather_object([data.plan.digest]))) > 1:
        raise TrainingError(f"stage '{section.name}': the processes see different data. Do all read the same files?")
    plan = {"digest": data.plan.digest, "num_steps": data.plan.num_steps, "processes": run.state.num_processes}
    path = folder / PLAN
    if resumed and path.is_file():
        before = folders.read_json(path)
        if before["processes"] != plan["processes"]:
            if run.recipe.deepspeed is not None:
                raise TrainingError(
                    f"stage '{section.name}': its checkpoint was written by {before['processes']} processes, each with "
                    f"its own share of the optimizer; {plan['processes']} cannot read it. Start "
                    f"{before['processes']} again, or start over with --no-resume."
                )
            say(
                run.console,
                f"Note: was trained on {before['processes']} process(es), goes on with {plan['processes']}: the same "
                "records in each step, but other dropout.",
            )
        elif before["digest"] != plan["digest"] and not {"data", "stages"} & set(run.allow_changes):
            raise TrainingError(
                f"stage '{section.name}': its records or clips are not those that it was started with, so it cannot go "
                "on exactly. Restore the data, start over (--no-resume), or allow it (--allow-change data)."
            )
    if run.state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)


def _steps_before(run: _Run, index: int) -> int:
    done = [section.name for section in run.recipe.stages[:index]]
    return sum(int(run.folder.done(name)["steps"]) for name in done)
