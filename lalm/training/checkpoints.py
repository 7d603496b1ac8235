"""Files of a training checkpoint: written beside, then renamed, so that a half-written one is never picked up.

    checkpoint-100/
        trained.safetensors     the parameters that train
        optimizer.safetensors   their optimizer state, keyed by parameter name
        optimizer.json          hyper-parameters of each group
    scheduler.json          the schedule's step
        rng-0.safetensors       random state of each process
        trainer_state.json      the step; written last

No pickle: everything is safetensors or JSON. (Under DeepSpeed the optimizer's files are DeepSpeed's own.)
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lalm.errors import CheckpointError
from lalm.training.fsdp import share_like, whole

TRAINED = "trained.safetensors"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_GROUPS = "optimizer.json"
SCHEDULER = "scheduler.json"
STATE = "trainer_state.json"
HEADS_FILE, CLASSES = "heads.safetensors", "classes.json"
HEADS_PREFIX = "objective_heads."
"""How the names of parameters begin that only training needs."""
STAGING = ".writing"
"""The folder, beside the checkpoints, in which the next one grows."""


def find_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a stage, by step."""
    found = []
    for path in folder.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (path / STATE).is_file() and (path / TRAINED).is_file():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def publish(staged: Path, final: Path) -> None:
    """Makes a finished folder visible under its name in one step; its files are on the disk before."""
    for path in staged.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(staged, final)


def keep_last(folder: Path, count: int, *, also: int | None = None) -> None:
    """Removes all checkpoints but the last `count`, and that of the step `also`."""
    for path in find_checkpoints(folder)[:-count]:
        if path.name != f"checkpoint-{also}":
            shutil.rmtree(path, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def save_scheduler(folder: Path, scheduler: Any) -> None:
    """Writes the step of a `LambdaLR`; its functions come from the recipe."""
    state = {key: value for key, value in scheduler.state_dict().items() if key != "lr_lambdas"}
    write_json(folder / SCHEDULER, state)


def load_scheduler(folder: Path, scheduler: Any) -> None:
    """Restores what `save_scheduler` wrote."""
    state = json.loads((folder / SCHEDULER).read_text(encoding="utf-8"))
    scheduler.load_state_dict({**state, "lr_lambdas": [None] * len(scheduler.base_lrs)})


def save_optimizer(folder: Path, optimizer: torch.optim.Optimizer, *, writes: bool = True) -> None:
    """Writes the state of every parameter by name, and the groups' numbers. Groups carry `names` (see `stages`).

    Where FSDP deals the state out, every process takes part in making it whole; the one that `writes` does so.
    """
    tensors: dict[str, torch.Tensor] = {}
    groups = []
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                state = whole(torch.as_tensor(value).detach())
                if writes:
                    tensors[f"{name}:{key}"] = state.cpu().contiguous()
        groups.append({key: value for key, value in group.items() if key != "params"})
    if writes:
        save_file(tensors, folder / OPTIMIZER)
        write_json(folder / OPTIMIZER_GROUPS, {"groups": groups})


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restores what `save_optimizer` wrote.

    Raises:
        CheckpointError: if the parameters are not those that were saved.
    """
    saved = json.loads((folder / OPTIMIZER_GROUPS).read_text(encoding="utf-8"))
    tensors = load_file(folder / OPTIMIZER)
    now = [group["names"] for group in optimizer.param_groups]
    before = [group["names"] for group in saved["groups"]]
    if now != before:
        raise CheckpointError(f"{folder}: its optimizer state is of other parameters than this stage trains.")
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(":")
        by_name.setdefault(name, {})[key] = tensor
    parameters = [
        (name, parameter)
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    ]
    state = {
        # What is not of the parameter's shape is its step, a number that all have.
        index: {
            key: share_like(parameter, value) if value.shape == parameter.shape else value
            for key, value in by_name[name].items()
        }
        for index, (name, parameter) in enumerate(parameters)
        if name in by_name
    }
    start = 0
    groups = []
    for live, group in zip(optimizer.param_groups, saved["groups"], strict=True):
        indices = list(range(start, start + len(group["names"])))
        start += len(indices)
        restored = {key: tuple(v) if isinstance(live.get(key), tuple) else v for key, v in group.items()}
        groups.append({**restored, "params": indices})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_random_state(folder: Path, rank: int) -> None:
    """Writes this process's random state: Python, NumPy, torch, and its GPU."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {
        "python": torch.tensor(internal, dtype=torch.int64),
        "numpy": torch.from_numpy(keys.astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    numbers = {"python": [version, gauss], "numpy": [kind, position, has_gauss, cached]}
    save_file(tensors, folder / f"rng-{rank}.safetensors", metadata={"state": json.dumps(numbers)})


def load_random_state(folder: Path, rank: int) -> bool:
    """Restores what `save_random_state` wrote; False where that process left nothing (another number of processes)."""
    path = folder / f"rng-{rank}.safetensors"
    if not path.is_file():
        return False
    with safe_open(path, framework="pt") as file:
        numbers = json.loads(file.metadata()["state"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    version, gauss = numbers["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    kind, position, has_gauss, cached = numbers["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    return True


def save_trained(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes the trained parameters."""
    save_file(tensors, folder / TRAINED, metadata={"format": "pt"})


def split_heads(path: Path, folder: Path, classes: Sequence[tuple[str, str]]) -> None:
    """A finished stage's weights: what goes on to the next stage as `trained.safetensors`, the heads of its objectives
    as `heads.safetensors`, and the (task, answer) of each class as `classes.json`; each atomically."""
    tensors = load_file(path)
    heads = {name: tensor for name, tensor in tensors.items() if name.startswith(HEADS_PREFIX)}
    if heads:
        _save_atomically(folder / HEADS_FILE, heads)
    if classes:
        write_json(folder / CLASSES, [list(pair) for pair in classes])
    _save_atomically(folder / TRAINED, {name: tensor for name, tensor in tensors.items() if name not in heads})


def average_trained(path: Path, others: Sequence[Path]) -> None:
    """Replaces the weights in a file by the mean of its own and those of other files, which hold the same names.

    Raises:
        CheckpointError: if a file cannot be read, or holds others.
    """
    own = load_file(path)
    shapes = {name: tensor.shape for name, tensor in own.items()}
    sums = {name: tensor.double() for name, tensor in own.items()}
    for other in others:
        try:
            tensors = load_file(other)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{other}: cannot be read ({error}). Train its stage again.") from error
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise CheckpointError(f"{other}: holds other weights than {path}; their mean cannot be taken.")
        for name, tensor in tensors.items():
            sums[name] += tensor.double()
    count = len(others) + 1
    _save_atomically(path, {name: (total / count).to(own[name].dtype) for name, total in sums.items()})


def _save_atomically(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP or a DeepSpeed engine."""
    while hasattr(model, "module"):
        model = model.module
    return model
