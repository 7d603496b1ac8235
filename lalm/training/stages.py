"""What trains in a stage: parts of the model are thawed by name, everything else is frozen.

The parts are the model's own (`model.parts()`); a part trains when the stage gives it a learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lalm.errors import CheckpointError, TrainingError
from lalm.recipe.schema import StageSection
from lalm.training.fsdp import whole

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
NORM_TYPE_ENDINGS = ("LayerNorm", "RMSNorm")
"""transformers writes its own normalisations, each family another class that derives from `nn.Module` alone."""

HEADS = "heads"
"""The part that only a stage has."""


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part: how many there are, and how many train in the stage."""

    part: str
    num_parameters: int
    num_trainable: int


def enter_stage(model: nn.Module, stage: StageSection, *, num_classes: int = 0, seed: int = 0) -> list[PartCount]:
    """Freezes the model but for the stage's parts, whose weights become float32, and sets the adapter's strength.

    The objectives beside language_model get their heads, which `seed` starts; `num_classes` are those of the
    classification head.

    Raises:
        TrainingError: if a part that the stage trains has no parameters in this model, or a pattern of `only` fits
            none of a part's names.
    """
    give_heads(model, stage, num_classes=num_classes, seed=seed)
    model.requires_grad_(False)
    widen(model, stage)
    counts = []
    for part, parameters in model.parts().items():
        trains = getattr(stage.learning_rates, part) is not None
        if trains and not parameters:
            raise TrainingError(
                f"stage '{stage.name}': learning_rates.{part} is given, but the model has no parameters in that part. "
                "Remove the rate, or add the part to the recipe."
            )
        chosen = _chosen(stage, part, parameters) if trains else []
        for _, parameter in chosen:
            parameter.requires_grad_(True)
        total = sum(_size(parameter) for _, parameter in parameters)
        counts.append(PartCount(part, total, sum(_size(parameter) for _, parameter in chosen)))
    model.set_lora_scale(stage.lora_scale)
    model.mix_positions = stage.mix_positions
    return counts


def widen(model: nn.Module, stage: StageSection) -> None:
    """Makes the parts that the stage trains float32, whole: layers of two precisions would not fit together."""
    for part, parameters in model.parts().items():
        if getattr(stage.learning_rates, part) is not None:
            for _, parameter in parameters:
                parameter.data = parameter.data.float()


def give_heads(model: nn.Module, stage: StageSection, *, num_classes: int = 0, seed: int = 0) -> None:
    """The heads of the stage's objectives; takes away those of another stage."""
    weights = stage.objective_weights()
    if set(weights) != {"language_model"}:
        model.begin_objectives(
            weights,
            num_classes=num_classes,
            seed=seed,
            head_input=stage.head_input,
            temperature=stage.contrastive_temperature,
            both_directions=stage.contrastive_direction == "both",
        )
    elif getattr(model, "objective_heads", None) is not None:
        model.end_objectives()


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
    """Every parameter that trains now, by its name in the model, whole and on the CPU."""
    return {name: whole(p.detach()).cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


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
    """Names of all parameters that the stage trains and leaves to the next: all but those of heads."""
    return [
        name
        for part, parameters in model.parts().items()
        if part != HEADS and getattr(stage.learning_rates, part) is not None
        for name, _ in _chosen(stage, part, parameters)
    ]


def are_taken_back(model: nn.Module, stages: Sequence[StageSection], files: Sequence[StageSection]) -> bool:
    """Whether the files of other stages, put into the model, leave nothing in it of what `stages` trained.

    Statistics of batches are in no file, and a part that was widened stays wide.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return False
    trained, kept = ({name for stage in group for name in part_names(model, stage)} for group in (stages, files))
    widened, wide = ({part for stage in group for part in _parts(stage)} for group in (stages, files))
    return trained <= kept and widened <= wide


def _parts(stage: StageSection) -> list[str]:
    return [part for part, rate in stage.learning_rates if rate is not None and part != HEADS]


def _chosen(
    stage: StageSection, part: str, parameters: Sequence[tuple[str, nn.Parameter]]
) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a part that `only` lets through."""
    patterns = {str(name): found for name, found in stage.only.items()}.get(part)
    if patterns is None:
        return list(parameters)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in parameters):
            raise TrainingError(
                f"stage '{stage.name}': only.{part}: no parameter is named like '{pattern}'. The part's first names: "
                f"{', '.join(name for name, _ in parameters[:3])}"
            )
    return [item for item in parameters if any(fnmatchcase(item[0], pattern) for pattern in patterns)]


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith(NORM_TYPE_ENDINGS)


def _size(parameter: nn.Parameter) -> int:
    """Numbers in a parameter, also where ZeRO-3 holds a slice of it only."""
    return getattr(parameter, "ds_numel", parameter.numel())
