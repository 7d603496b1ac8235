"""One process of a distributed test: `torchrun distributed_worker.py OUT OPTIONS_AS_JSON`. Not a test itself.

Trains the tiny model of conftest; the first process writes its losses to OUT/losses.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers import TrainerCallback

from lalm.recipe.schema import StageSection
from lalm.training.checkpoints import find_checkpoints
from lalm.training.deepspeed import announce_single_process
from lalm.training.distributed import join_processes
from lalm.training.stages import enter_stage
from lalm.training.trainer import LalmTrainer, check_distribution, training_arguments
from tests.training.conftest import TinyBatches, TinyModel


class Losses(TrainerCallback):
    """Collects losses; all processes die together at `die_at`."""

    def __init__(self, die_at: int | None):
        self.values: dict[int, float] = {}
        self.die_at = die_at

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.values[state.global_step] = logs["loss"]

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.die_at:
            os._exit(9)


def main(out: Path, options: dict) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if options.get("deepspeed") is not None:
        announce_single_process()
    state = join_processes()
    model = TinyModel()
    model.dropout.p = options.get("dropout", 0.0)
    stage = StageSection(
        name="align", learning_rates={"projector": 0.01, "lora": 0.02}, steps=8, warmup_steps=2, save_every_steps=3
    )
    enter_stage(model, stage)
    recipe = SimpleNamespace(name="tiny", output=SimpleNamespace(log_to=()), deepspeed=options.get("deepspeed"))
    micro_batches = options["micro_batches"]
    args = training_arguments(recipe, stage, out, num_steps=8, micro_batches=micro_batches, seed=3)
    losses = Losses(options.get("die_at"))
    trainer = LalmTrainer(
        model,
        args,
        stage=stage,
        train_dataset=TinyBatches(8, micro_batches * state.num_processes),
        keep_checkpoints=2,
        callbacks=[losses],
    )
    check_distribution(trainer, wants_deepspeed=options.get("deepspeed") is not None)
    found = find_checkpoints(out)
    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    if state.is_main_process:
        (out / "losses.json").write_text(json.dumps(losses.values))
    state.wait_for_everyone()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
