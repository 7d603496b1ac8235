"""What a recipe takes on machines that are not here: memory of a GPU and time, by the way the processes share the work.

Everything is computed, nothing measured. Memory comes from `lalm.model.memory_plan`; time is operations over what a GPU
computes, and what ZeRO-3 and offloading send over what the links carry.

    plain     every GPU holds all            ZeRO-2   gradients and the optimizer are dealt out
    ZeRO-3    weights are dealt out too      ZeRO-3 offload   ... and lie in the host's memory with the optimizer
    QLoRA     plain, with frozen weights in 4 bits
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lalm.errors import RecipeError
from lalm.model.gpus import DENSE_BFLOAT16
from lalm.model.memory import PassCost
from lalm.model.memory_plan import plan_memory
from lalm.model.planned import BatchShape, StageMemory
from lalm.recipe.schema import Recipe

GIB = 2**30
USABLE = 0.92
"""The share of a GPU's memory that tensors get; context, communication and fragmentation take the rest (assumed)."""
UTILISATION = 0.4
"""The share of a GPU's bfloat16 peak that training reaches (a 7B on an H100 reached 0.44; assumed elsewhere)."""
LINK_BYTES_PER_SECOND = {"one node": 200e9, "several nodes": 25e9, "host": 20e9}
"""What a GPU sends or receives: NVLink of the third generation, 200 Gbit/s a GPU between nodes, PCIe 4 (assumed)."""
GPUS = {24: "RTX 4090", 40: "A100", 80: "A100", 141: "H200"}
"""GiB -> the GPU that is meant."""


@dataclass(frozen=True)
class Machine:
    """`nodes` of `gpus` each."""

    nodes: int
    gpus: int
    gibibytes: int

    @property
    def num_processes(self) -> int:
        return self.nodes * self.gpus

    def __str__(self) -> str:
        prefix = f"{self.nodes} nodes x " if self.nodes > 1 else ""
        return f"{prefix}{self.gpus} x {self.gibibytes} GB"


@dataclass(frozen=True)
class Way:
    """How the processes of a run share weights, gradients and optimizer."""

    name: str
    overrides: tuple[str, ...]
    """What to put behind the recipe on the command line."""
    splits_optimizer: bool = False
    splits_weights: bool = False
    offloads: bool = False
    quantised: bool = False


WAYS = (
    Way("plain", ()),
    Way("QLoRA", ("language_model.quantisation=nf4",), quantised=True),
    Way("ZeRO-2", ("deepspeed.zero_optimization.stage=2",), splits_optimizer=True),
    Way("ZeRO-3", ("deepspeed.zero_optimization.stage=3",), splits_optimizer=True, splits_weights=True),
    Way(
        "ZeRO-3 offload",
        (
            "deepspeed.zero_optimization.stage=3",
            "deepspeed.zero_optimization.offload_param.device=cpu",
            "deepspeed.zero_optimization.offload_optimizer.device=cpu",
        ),
        splits_optimizer=True,
        splits_weights=True,
        offloads=True,
    ),
)


@dataclass(frozen=True)
class Fit:
    """One stage on one machine in one way."""

    way: Way
    checkpointing: bool
    gpu_bytes: int
    host_bytes: int
    """Of one process, offloaded."""
    records_per_second: float
    fits: bool


def parse_machine(text: str) -> Machine:
    """`1x24`, `8x80` or `4x8x80`: nodes (one if left out), GPUs of a node, GiB of a GPU.

    Raises:
        RecipeError: if it is neither, or no GPU of that size is known.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", text.strip())
    if match is None or not all(int(number) for number in match.groups() if number):
        raise RecipeError(f"--machine {text}: accepted are GPUSxGB and NODESxGPUSxGB, as 1x24, 8x80 or 4x8x80.")
    machine = Machine(int(match[1] or 1), int(match[2]), int(match[3]))
    if machine.gibibytes not in GPUS:
        known = ", ".join(f"{size} ({name})" for size, name in GPUS.items())
        raise RecipeError(f"--machine {text}: no GPU of {machine.gibibytes} GB is known. Known: {known}.")
    return machine


def on_gpus(recipe: Recipe, *, quantised: bool, checkpointing: bool) -> Recipe:
    """The recipe as a GPU trains it: bfloat16, fused attention; every stage with or without gradient checkpointing."""
    changes: dict[str, Any] = {"dtype": "bfloat16", "attention": "sdpa"}
    if quantised:
        changes["quantisation"] = "nf4"
    stages = tuple(stage.model_copy(update={"gradient_checkpointing": checkpointing}) for stage in recipe.stages)
    encoders = tuple(section.model_copy(update={"dtype": "bfloat16"}) for section in recipe.encoders)
    language_model = recipe.language_model.model_copy(update=changes)
    return recipe.model_copy(update={"language_model": language_model, "stages": stages, "encoders": encoders})


class MachinePlanner:
    """The heaviest stage of a recipe on any machine: what it holds is counted once.

    Args:
        live_encoder, shapes: see `plan_memory`.
    """

    def __init__(self, recipe: Recipe, *, live_encoder: bool, shapes: Mapping[str, BatchShape] | None = None):
        counted: dict[object, PassCost] = {}

        def plan(quantised: bool, checkpointing: bool, only: str | None) -> tuple[StageMemory, ...]:
            changed = on_gpus(recipe, quantised=quantised, checkpointing=checkpointing)
            return plan_memory(changed, live_encoder=live_encoder, shapes=shapes, only=only, counted=counted)

        heaviest = max(plan(False, False, None), key=lambda stage: stage.total)
        self.stage = heaviest.name
        self._memory = {(False, False): heaviest}
        for quantised, checkpointing in ((False, True), (True, False), (True, True)):
            self._memory[quantised, checkpointing] = plan(quantised, checkpointing, heaviest.name)[0]

    def fits(self, machine: Machine) -> list[Fit]:
        """Every way in which the stage can be trained on a machine; dealing out needs several GPUs, offloading one."""
        ways = [way for way in WAYS if machine.num_processes > 1 or way.offloads or not way.splits_optimizer]
        return [self._fit(machine, way, checkpointing) for way in ways for checkpointing in (False, True)]

    def _fit(self, machine: Machine, way: Way, checkpointing: bool) -> Fit:
        memory = self._memory[way.quantised, checkpointing]
        gpu_bytes, host_bytes = bytes_held(memory, way, machine.num_processes)
        return Fit(
            way=way,
            checkpointing=checkpointing,
            gpu_bytes=gpu_bytes,
            host_bytes=host_bytes,
            records_per_second=memory.shape.clips * machine.num_processes / seconds_of_pass(memory, way, machine),
            fits=gpu_bytes <= USABLE * machine.gibibytes * GIB,
        )


def bytes_held(memory: StageMemory, way: Way, num_processes: int) -> tuple[int, int]:
    """Bytes of one process: on its GPU, and offloaded. ZeRO-3 holds two layers whole: one computes, one arrives."""
    share = num_processes if way.splits_optimizer else 1
    weights = -(-memory.weights // num_processes) if way.splits_weights else memory.weights
    gradients = memory.gradients // share
    states = memory.optimizer // share
    whole = 2 * memory.largest_layer if way.splits_weights else 0
    if way.offloads:
        return memory.activations + whole, weights + gradients + states
    return weights + gradients + states + memory.activations + whole, 0


def seconds_of_pass(memory: StageMemory, way: Way, machine: Machine) -> float:
    """One micro-batch: operations, and with ZeRO-3 the weights twice over the slowest link on their way."""
    seconds = memory.flops / (DENSE_BFLOAT16[GPUS[machine.gibibytes]] * UTILISATION)
    if way.splits_weights and machine.num_processes > 1:
        others = 1 - 1 / machine.num_processes
        link = LINK_BYTES_PER_SECOND["several nodes" if machine.nodes > 1 else "one node"]
        seconds += 2 * memory.weights * others / link
    if way.offloads:
        seconds += 2 * memory.weights / machine.num_processes / LINK_BYTES_PER_SECOND["host"]
    return seconds
