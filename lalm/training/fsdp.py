"""FSDP2: weights, gradients and optimizer are dealt out over the processes by torch itself, as ZeRO-3 does.

Each layer of the language model and of the encoders is gathered when it runs; everything else (embeddings, projector,
heads) makes one group, whole from the forward pass to the end of the backward one. accelerate has the same, on GPUs
alone: on CPUs it takes the setting and trains plain DDP (accelerate 1.15), so `fully_shard` is called here.

Source: PyTorch FSDP (arXiv 2304.11277), `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lalm.encoders.base import AudioEncoder
from lalm.recipe.schema import FsdpSection, Recipe


def fsdp_settings(recipe: Recipe, num_processes: int) -> dict[str, Any] | None:
    """What `fully_shard` is told, beside the processes; None without an `fsdp:` block, or where there is but one
    process and so nothing to deal out."""
    if recipe.fsdp is None or num_processes == 1:
        return None
    return recipe.fsdp.model_dump()


def deal_out(model: nn.Module, settings: FsdpSection) -> None:
    """Leaves each process of the run a share of every parameter, in place. What trains and how is decided before."""
    mesh = init_device_mesh(next(model.parameters()).device.type, (torch.distributed.get_world_size(),))
    for layer in [*repeated_layers(model)]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=settings.reshard_after_forward)
    fully_shard(model, mesh=mesh)
    # accelerate would put DDP around it.
    model._is_accelerate_prepared = True  # type: ignore[assignment]


def repeated_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of the language model and of the encoders: what stands in their outermost lists of modules of one
    kind. A list that shares a parameter with anything else is left out."""
    towers = [module.model for module in model.modules() if isinstance(module, AudioEncoder)]
    for root in [cast(nn.Module, model.language_model), *towers]:
        for layers in _outermost_lists(root):
            inside = {id(parameter) for parameter in layers.parameters()}
            # A parameter that two modules hold is counted once by `parameters()`, twice by its names.
            names = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
            if all(names.count(parameter) == 1 for parameter in inside):
                yield from layers


def _outermost_lists(root: nn.Module) -> Iterator[nn.ModuleList]:
    for child in root.children():
        if isinstance(child, nn.ModuleList) and len({type(layer) for layer in child}) == 1:
            yield child
        else:
            yield from _outermost_lists(child)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a share, whole in every process; all of them take part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """This process's share of a tensor that all have whole, dealt out as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return tensor
    device = parameter.device_mesh.device_type
    return distribute_tensor(tensor.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None)


def give_back(model: nn.Module) -> None:
    """Frees what a forward pass without a backward one left whole: parameters are the shares again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
