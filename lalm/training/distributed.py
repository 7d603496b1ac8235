"""The processes of a run: one, or several that `torchrun`, `deepspeed` or `accelerate launch` started.

The first process fills the cache and writes the files that are shared; the others wait for it.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import PartialState

from lalm.errors import TrainingError

WAIT = timedelta(hours=24)
"""How long the others wait while the first process encodes the clips of a large set."""


SIGNS_OF_A_LOST_PROCESS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL communicator was aborted",
    "remote process exited",
)
"""What gloo and NCCL say when a process that they wait for has died."""


def tells_of_a_lost_process(error: Exception, num_processes: int) -> bool:
    """Whether an error means that another process of the run has died."""
    return num_processes > 1 and any(sign in str(error) for sign in SIGNS_OF_A_LOST_PROCESS)


def check_launcher(*, wants_deepspeed: bool) -> None:
    """Refuses what `accelerate launch` asks for beside the recipe.

    Raises:
        TrainingError: for FSDP, which the recipe's `fsdp:` block asks for, or for DeepSpeed where the recipe has no
            `deepspeed:` block.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise TrainingError(
            "accelerate launch --use_fsdp: the launcher's own settings would not be written beside the checkpoints. "
            "Put 'fsdp: {}' into the recipe, and leave the option out."
        )
    # Accelerate sets ACCELERATE_USE_DEEPSPEED itself too; this one comes from its launcher alone.
    if "ACCELERATE_CONFIG_DS_FIELDS" in os.environ and not wants_deepspeed:
        raise TrainingError(
            "accelerate launch --use_deepspeed: the recipe has no 'deepspeed:' block, and the launcher's own settings "
            "would not be written beside the checkpoints. Put 'deepspeed: {}' into the recipe, or leave the option out."
        )


def uses_cpu() -> bool:
    """Whether this machine trains on its CPU."""
    return not torch.accelerator.is_available()


def join_processes() -> PartialState:
    """Meets the other processes of this run, if there are any.

    Raises:
        TrainingError: if a launcher announced several processes but this one runs alone.
    """
    if uses_cpu():
        # Where DeepSpeed is installed, accelerate imports it, and it warns about what it takes for a missing GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    announced = int(os.environ.get("WORLD_SIZE", "1"))
    state = PartialState(cpu=uses_cpu(), **({"timeout": WAIT} if announced > 1 else {}))
    if state.num_processes != announced:
        raise TrainingError(
            f"{announced} processes were launched, but they do not meet: this one sees {state.num_processes}. "
            "Start with `torchrun --nproc-per-node N -m lalm train RECIPE`."
        )
    return state
