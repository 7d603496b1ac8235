"""What trains in a stage: parts of the model are thawed by name, everything else is frozen.

The parts are the model's own (`model.parts()`); a part trains when the stage gives it a learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lalm.errors import CheckpointError, TrainingError
from lalm.recipe.schema import StageSection

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
NORM_TYPE_ENDINGS = ("LayerNorm", "RMSNorm")
"""transformers writes its own normalisations, each family another class that derives from `nn.Module` alone."""


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part: how many there are, and how many train in the stage."""

    part: str
    num_parameters: int
    num_trainable: int


def enter_stage(model: nn.Module, stage: StageSection) -> list[PartCount]:
    """Freezes the model but for the stage's parts, whose weights become float32, and sets the adapter's strength.

    Raises:
        TrainingError: if a part that the stage trains has no parameters in this model.
    """
    model.requires_grad_(False)
    counts = []
    for part, parameters in model.parts().items():
        trains = getattr(stage.learning_rates, part) is not None
        if trains and not parameters:
            raise TrainingError(
                f"stage '{stage.name}': learning_rates.{part} is given, but the model has no parameters in that part. "
                "Remove the rate, or add the part to the recipe."
            )
        for _, parameter in parameters if trains else ():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        total = sum(_size(parameter) for _, parameter in parameters)
        counts.append(PartCount(part, total, total if trains else 0))
    model.set_lora_scale(stage.lora_scale)
    return counts


def describe(counts: Iterable[PartCount]) -> str:
    """`projector 1,234 of 1,234, lora 0 of 99` for a log line."""
    return ", ".join(f"{count.part} {count.num_trainable:,} of {count.num_parameters:,}" for count in counts)


def parameter_groups(model: nn.Module, stage: StageSection) -> list[dict]:
    """Optimizer groups: one a part and kind, with `part`, `peak_lr` and `names` kept beside the parameters.

    Weight decay is on matrices alone: never on normalisations, embeddings, biases and other vectors. The kind of the
    module decides, not its name.
    """
    no_decay = {
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim < 2 or isinstance(module, (*NORMS, nn.Embedding)) or _is_norm(module)
    }
    groups = []
    for part, parameters in model.parts().items():
        peak = getattr(stage.learning_rates, part)
        for decays in (True, False) if peak is not None else ():
            chosen = [(name, p) for name, p in parameters if p.requires_grad and (id(p) not in no_decay) == decays]
            if chosen:
                groups.append(
                    {
                        "params": [parameter for _, parameter in chosen],
                        "names": [name for name, _ in chosen],
                        "part": part,
                        "peak_lr": peak,
                        "lr": peak,
                        "weight_decay": stage.weight_decay if decays else 0.0,
                    }
                )
    return groups


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter that trains now, by its name in the model, on the CPU."""
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def load_trained_tensors(model: nn.Module, path: Path, *, names: Iterable[str] | None = None) -> None:
    """Puts saved tensors into the model. `names` are those expected; all that train now by default.

    Raises:
        CheckpointError: if the file cannot be read, a name is missing or too many, or a shape differs.
    """
    check_names(model, path, names=names)
    parameters = dict(model.named_parameters())
    for name, tensor in load_file(path).items():
        if tensor.shape != parameters[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {list(tensor.shape)}, the model has {list(parameters[name].shape)}."
            )
        # The saved precision stays, as it does in a run that was never stopped.
        parameters[name].data = tensor.to(parameters[name].device)


def check_names(model: nn.Module, path: Path, *, names: Iterable[str] | None = None) -> None:
    """Compares the names in a file with those expected; see `load_trained_tensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            saved = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}). Remove its folder to go on from an earlier one."
        ) from error
    wanted = {name for name, p in model.named_parameters() if p.requires_grad} if names is None else set(names)
    missing, surplus = sorted(wanted - saved), sorted(saved - wanted)
    if missing or surplus:
        raise CheckpointError(
            f"{path}: does not fit what the stage trains. Missing: {missing[:5] or 'none'}; unexpected: "
            f"{surplus[:5] or 'none'}. It was saved by another recipe or model."
        )


def part_names(model: nn.Module, stage: StageSection) -> list[str]:
    """Names of all parameters that the stage trains."""
    parts = model.parts().items()
    return [name for part, params in parts if getattr(stage.learning_rates, part) is not None for name, _ in params]


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith(NORM_TYPE_ENDINGS)


def _size(parameter: nn.Parameter) -> int:
    """Numbers in a parameter, also where ZeRO-3 holds a slice of it only."""
    return getattr(parameter, "ds_numel", parameter.numel())
