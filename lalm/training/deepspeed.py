"""DeepSpeed settings from a recipe; the recipe's own `deepspeed:` block is merged last and wins.

Source of what works on CPUs: two gloo processes with ZeRO 0-3 through transformers' Trainer (deepspeed 0.19).
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from lalm.encoders.base import AudioEncoder
from lalm.errors import CheckpointError, MissingPackageError
from lalm.model.build import default_device
from lalm.recipe.schema import Recipe
from lalm.training.distributed import uses_cpu


def deepspeed_settings(recipe: Recipe) -> dict[str, Any] | None:
    """The whole DeepSpeed configuration; None for a recipe without a `deepspeed:` block (an empty one is ZeRO-2).

    Raises:
        MissingPackageError: if DeepSpeed is not installed.
    """
    if recipe.deepspeed is None:
        return None
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingPackageError("deepspeed", "a recipe with a 'deepspeed:' block", "distributed")
    settings = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_allow_untested_optimizer": True,
        # Offloading keeps torch's AdamW: what trains is small, and DeepSpeed's own is built by a compiler.
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_param_persistence_threshold": 0,
        },
    }
    return merged(settings, recipe.deepspeed)


def go_without_cpu_kernel() -> None:
    """Lets gloo sum over processes on CPUs.

    DeepSpeed would compile a kernel of its own for that at the first start: two minutes, a C++ compiler, and a lock
    that a killed process leaves behind and every later run waits for in silence.
    """
    if uses_cpu() and importlib.util.find_spec("deepspeed") is not None:
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `changes` over it, key by key inside nested mappings."""
    result = dict(settings)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def announce_single_process() -> None:
    """Sets the variables of a launcher for a run that was started without one: DeepSpeed asks for MPI otherwise."""
    if "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def leave_zero() -> None:
    """Lets models be built whole again: while a ZeRO-3 configuration lives, transformers slices every new one."""
    unset_hf_deepspeed_config()


def even_out_passes(model: nn.Module) -> None:
    """Lets every process run its encoders equally often, which ZeRO-3 asks for: it gathers the weights of a layer in
    all processes at once, and an encoder runs once for each length of its clips."""
    for module in model.modules():
        if isinstance(module, AudioEncoder):
            module.common_passes = _largest_of_all


def _largest_of_all(count: int) -> int:
    found = torch.tensor(count, device=default_device())
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
    return int(found)


@contextmanager
def whole_parameters(model: nn.Module) -> Iterator[None]:
    """Inside, every parameter that trains is whole in every process, also where ZeRO-3 deals out slices."""
    sliced = [parameter for parameter in model.parameters() if parameter.requires_grad and hasattr(parameter, "ds_id")]
    if not sliced:
        yield
        return
    from deepspeed import zero

    with zero.GatheredParameters(sliced):
        yield


def load_engine(engine: Any, checkpoint: str) -> None:
    """Restores weights, optimizer and step of a DeepSpeed engine; frozen weights are not in the checkpoint.

    Raises:
        CheckpointError: if the checkpoint is not DeepSpeed's, or is of another number of processes.
    """
    try:
        found, _ = engine.load_checkpoint(checkpoint, load_module_strict=False)
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint}: DeepSpeed cannot restore it ({error}). Go on with the number of processes and the ZeRO "
            "stage that wrote it, or start over with --no-resume."
        ) from error
    if found is None:
        raise CheckpointError(f"{checkpoint}: holds no DeepSpeed state. It was saved by a run without DeepSpeed.")
