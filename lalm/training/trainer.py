"""`LalmTrainer`: transformers' Trainer, told how `lalm` batches, weighs, schedules and saves. Nothing else of its loop
is replaced.

An item of the training set is a whole micro-batch of this process, in the order in which it is trained. A stage is
one epoch of `steps x micro-batches` items, so that the Trainer's own fast-forward resumes at the exact step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput
from transformers.utils import is_torch_tf32_available

from lalm.errors import CheckpointError, TrainingError
from lalm.recipe.schema import FsdpSection, Recipe, StageSection
from lalm.training import checkpoints
from lalm.training.breakdown import LossBreakdown
from lalm.training.deepspeed import deepspeed_settings, even_out_passes, load_engine, whole_parameters
from lalm.training.distributed import uses_cpu
from lalm.training.fsdp import deal_out, give_back, whole
from lalm.training.items import count_items
from lalm.training.matrix_units import products_in_tiles
from lalm.training.process_share import ProcessShare, items_ahead
from lalm.training.schedule import share_of_peak
from lalm.training.stages import check_names, load_trained_tensors, parameter_groups, trained_tensors

NOT_FOR_THE_MODEL = ("record_ids", "tasks", "sources", "owners", "audio_seconds")
"""What an item says of itself; everything else in it is an argument of the model's forward."""
BAD_BATCH = "bad_batch"


def training_arguments(
    recipe: Recipe, stage: StageSection, folder: Path, *, num_steps: int, micro_batches: int, seed: int
) -> TrainingArguments:
    """The Trainer's settings for one stage. `micro_batches` are those of one process in one optimizer step."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=num_steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=micro_batches,
        average_tokens_across_devices=True,
        # DeepSpeed keeps an optimizer of torch's as it is, and deals out its tensors, for which the plain one is made.
        optim="adamw_torch_fused" if recipe.deepspeed is None else "adamw_torch",
        learning_rate=max(rate for rate in stage.learning_rates.model_dump().values() if rate is not None),
        weight_decay=stage.weight_decay,
        adam_beta1=stage.adam_betas[0],
        adam_beta2=stage.adam_betas[1],
        max_grad_norm=stage.max_grad_norm,
        activation_checkpointing=stage.gradient_checkpointing,
        save_strategy="steps",
        save_steps=stage.save_every_steps,
        save_total_limit=None,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        disable_tqdm=True,
        report_to=[],
        run_name=f"{recipe.name}-{stage.name}",
        seed=seed,
        data_seed=seed,
        use_cpu=uses_cpu(),
        # Products of float32 (a projector's) in matrix units, where a GPU has them: half a percent of a 7B's operations
        # would else take four percent of its time. `torch` leaves them off. For a CPU: `train`.
        tf32=True if not uses_cpu() and is_torch_tf32_available() else None,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        # What the Trainer writes into the model's configuration; the loss itself never uses a cache.
        use_cache=True,
        deepspeed=deepspeed_settings(recipe),
    )


class LalmTrainer(Trainer):
    """Trains one stage.

    Args:
        stage: rates, schedule, decay.
        keep_checkpoints: how many checkpoints stay, and that of the step which `best_step` names, if any.
        train_dataset: micro-batches in order of step, accumulation, process: dicts of forward's arguments, with
            `record_ids` (list of str) and `audio_seconds` (float) beside them.
        breakdown: collects the loss by task, source and objective.
        fsdp: how torch deals the model out over the processes, if it does.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        stage: StageSection,
        train_dataset: Dataset,
        keep_checkpoints: int,
        best_step: Callable[[], int | None] = lambda: None,
        callbacks: list | None = None,
        breakdown: LossBreakdown | None = None,
        fsdp: FsdpSection | None = None,
    ):
        self.breakdown, self.fsdp = breakdown, fsdp
        self._part_norms: dict[str, float] = {}
        self._trained: dict[str, list[nn.Parameter]] | None = None
        self.stage, self.keep_checkpoints, self._best_step = stage, keep_checkpoints, best_step
        self._writes_to: Path | None = None
        self._step_ids: list[str] = []
        self._step_counts = {"records": 0.0, "audio_seconds": 0.0, "positions": 0.0}
        super().__init__(
            model=model,
            args=args,
            train_dataset=ProcessShare(
                train_dataset, args.process_index, args.world_size, ahead=items_ahead(args.gradient_accumulation_steps)
            ),
            data_collator=_only_item,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As the Trainer's; products of float32 take matrix units where the decoder's do."""
        with products_in_tiles(self.stage, checkpoints.unwrap(self.model)):
            return super().train(*args, **kwargs)

    # Data: the items are batches already, and already this process's own.

    def get_train_dataloader(self) -> DataLoader:
        """Items in order. Not prepared by accelerate: that would deal the items out over the processes once more."""
        return DataLoader(
            self.train_dataset,
            batch_size=1,
            sampler=SequentialSampler(self.train_dataset),
            collate_fn=_only_item,
            generator=torch.Generator(),
        )

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | dict[str, Tensor]:
        """What the loss is divided by: items of the whole optimizer step, over accumulation and processes.

        One number where language_model is the only objective, else a number for each.
        """
        objectives = list(self.stage.objective_weights())
        counts = [count_items(batch) for batch in batch_samples]
        self._step_ids = [name for batch in batch_samples for name in batch.get("record_ids", ())]
        totals = torch.tensor(
            [
                *(sum(count.get(name, 0.0) for count in counts) for name in objectives),
                len(self._step_ids),
                sum(float(batch.get("audio_seconds", 0.0)) for batch in batch_samples),
                sum(batch["input_ids"].numel() for batch in batch_samples if "input_ids" in batch),
            ],
            dtype=torch.float32,
            device=device,
        )
        totals = self.accelerator.reduce(totals, reduction="sum")
        items, rest = totals[: len(objectives)], totals[len(objectives) :]
        self._step_counts = dict(zip(("records", "audio_seconds", "positions"), rest.tolist(), strict=True))
        items = torch.where(items > 0, items, torch.ones_like(items))  # a sum over nothing is 0, whatever divides it
        return items[0] if objectives == ["language_model"] else dict(zip(objectives, items, strict=True))

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Not counted: the Trainer's estimate walks over all parameters in every micro-batch."""
        return 0

    # Loss.

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's loss, which must be a number.

        Raises:
            TrainingError: if it is not; the records of the step are listed in a file.
        """
        inputs = dict(inputs)
        about = {key: inputs.pop(key) for key in NOT_FOR_THE_MODEL if key in inputs}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if not torch.isfinite(loss):
            self._stop_at_bad_batch("loss", loss.item(), about.get("record_ids", []))
        if self.breakdown is not None and model.training:
            self.breakdown.add(about, inputs.get("labels"), outputs)
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """The norm of all gradients, which are clipped by it; and that of each part. One pass over the gradients, and
        none over the frozen parameters."""
        if self.is_deepspeed_enabled:
            return super()._clip_grad_norm(model)
        if self._trained is None:
            self._trained = trained_by_part(checkpoints.unwrap(model))
        parameters = [parameter for part in self._trained.values() for parameter in part]
        norms = gradient_norms(self._trained)
        together = torch.stack([*norms.values()]) if norms else torch.zeros(0)
        self._part_norms = dict(zip(norms, together.tolist(), strict=True))
        if self.fsdp is not None:
            return self.accelerator.clip_grad_norm_(parameters, self.args.max_grad_norm)
        total = torch.linalg.vector_norm(together)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.args.max_grad_norm, total)
        return total

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = whole(norm) if isinstance(norm, Tensor) else norm
        if not self.is_deepspeed_enabled and norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            self._stop_at_bad_batch("gradient norm", float(norm), self._step_ids)
        return norm

    def _stop_at_bad_batch(self, what: str, value: float, record_ids: list[str]) -> None:
        step = self.state.global_step + 1
        path = Path(self.args.output_dir) / bad_batch_file(self.args.process_index, self.args.world_size)
        checkpoints.write_json(path, {"step": step, "what": what, "value": str(value), "records": list(record_ids)})
        raise TrainingError(
            f"stage '{self.stage.name}', step {step}: the {what} is {value}. The {len(record_ids)} records of the "
            f"batch are listed in {path}. Look at them, or lower the learning rate; the run goes on from its "
            "last checkpoint."
        )

    # Optimizer.

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a group for each part, at its own rate."""
        if self.optimizer is None:
            cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = cls(parameter_groups(checkpoints.unwrap(model or self.model), self.stage), **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The stage's schedule over its global step."""
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer, lambda step: share_of_peak(step, num_training_steps, self.stage)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # Log.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hands every step to the callbacks, with counts and the rate of each part. Keeps no history in the state."""
        if "loss" in logs:
            share = share_of_peak(self.state.global_step - 1, self.state.max_steps, self.stage)
            for part, peak in self.stage.learning_rates.model_dump().items():
                if peak is not None:
                    logs[f"lr_{part}"] = peak * share
            logs.update(self._step_counts)
            logs.update(self._part_norms)
            if self.breakdown is not None:
                logs.update(self.breakdown.read(self.accelerator))
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    # Checkpoints: trained parts only, complete or absent.

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writes_to or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes the checkpoint beside the others, then renames it."""
        folder = Path(self.args.output_dir)
        self._writes_to = folder / checkpoints.STAGING
        name = f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save:
                shutil.rmtree(self._writes_to, ignore_errors=True)
                (self._writes_to / name).mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoints.publish(self._writes_to / name, folder / name)
                shutil.rmtree(self._writes_to, ignore_errors=True)
                checkpoints.keep_last(folder, self.keep_checkpoints, also=self._best_step())
            self.accelerator.wait_for_everyone()
        except (OSError, SafetensorError) as error:
            last = checkpoints.find_checkpoints(folder)
            kept = f"The last whole one is {last[-1]}." if last else "There is no earlier one."
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"{folder / name}: the checkpoint cannot be written ({reason}). {kept} Make room and start the same "
                "command again."
            ) from error
        finally:
            self._writes_to = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the parameters that train; every process takes part, the first one writes."""
        give_back(self.model)
        with whole_parameters(self.model):
            tensors = trained_tensors(self.model)
        if self.args.should_save:
            checkpoints.save_trained(Path(output_dir or self.args.output_dir), tensors)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / checkpoints.TRAINED
        load_trained_tensors(checkpoints.unwrap(model or self.model), path)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
            if self.args.should_save:
                checkpoints.save_scheduler(Path(output_dir), self.lr_scheduler)
            return
        checkpoints.save_optimizer(Path(output_dir), self.optimizer, writes=self.args.should_save)
        if self.args.should_save:
            checkpoints.save_scheduler(Path(output_dir), self.lr_scheduler)

    def _prepare_for_training(self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None):
        """With DeepSpeed, loads the checkpoint here: the Trainer would want frozen weights in it. With FSDP, deals the
        model out, which has loaded its checkpoint whole."""
        if self.fsdp is not None:
            deal_out(self.model, self.fsdp)
            even_out_passes(self.model)
        if not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if self.model_wrapped.zero_optimization_partition_weights() and self.args.world_size > 1:
            even_out_passes(checkpoints.unwrap(self.model))
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            check_names(self.model, folder / checkpoints.TRAINED)
            load_engine(self.model_wrapped, resume_from_checkpoint)
            checkpoints.load_scheduler(folder, self.lr_scheduler)
        return prepared

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.train_dataset.seek(Path(checkpoint))
        if checkpoint is not None and not self.is_deepspeed_enabled:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer)
            checkpoints.load_scheduler(Path(checkpoint), self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        checkpoints.save_random_state(Path(output_dir), self.args.process_index)
        self.train_dataset.save_place(Path(output_dir), self.state.global_step)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random_state(Path(checkpoint), self.args.process_index)


def bad_batch_file(rank: int, world_size: int) -> str:
    """`bad_batch.json`; of several processes each names its own records, `bad_batch-RANK.json`."""
    return f"{BAD_BATCH}.json" if world_size == 1 else f"{BAD_BATCH}-{rank}.json"


def check_distribution(trainer: Trainer, *, wants_deepspeed: bool) -> None:
    """Refuses a launch that would silently train in another way than it was asked to.

    Raises:
        TrainingError: if DeepSpeed is asked for and not in use, or the processes that were launched do not meet.
    """
    kind = trainer.accelerator.distributed_type
    if wants_deepspeed and not str(kind).endswith("DEEPSPEED"):
        raise TrainingError(
            f"the recipe has a 'deepspeed:' block, but the run would be {kind}. Launch it with torchrun or deepspeed."
        )
    announced = int(os.environ.get("WORLD_SIZE", "1"))
    if trainer.args.world_size != announced:
        raise TrainingError(f"{announced} processes were launched, but the trainer sees {trainer.args.world_size}.")


def trained_by_part(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of every part that trains."""
    parts = {name: [item for _, item in pairs if item.requires_grad] for name, pairs in model.parts().items()}
    return {name: parameters for name, parameters in parts.items() if parameters}


def gradient_norms(trained: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, Tensor]:
    """`grad_norm/PART []` of every part that has gradients, before clipping."""
    norms = {}
    for part, parameters in trained.items():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            norms[f"grad_norm/{part}"] = whole(torch.nn.utils.get_total_norm(gradients))
    return norms


def _only_item(items: list) -> Any:
    """The collator: a batch of one item, which is a batch."""
    return items[0]
