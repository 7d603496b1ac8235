"""A count on few layers is the count on all: of real families and encoders, and only where layers are equal."""

from __future__ import annotations

import pytest
from torch import nn

from lalm.model import memory
from lalm.model.fewer_layers import extrapolate
from lalm.model.memory_plan import plan_memory
from lalm.recipe.load import load_recipe


def linear_bytes(module: nn.Module) -> tuple[int]:
    return (sum(value.numel() for value in module.parameters()),)


class Blocks(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.layers = nn.ModuleList(layers)


@pytest.mark.parametrize(
    "module",
    [
        Blocks(*(nn.Linear(3, 3) for _ in range(9))),
        Blocks(nn.Linear(3, 5), *(nn.Linear(5, 5) for _ in range(6)), nn.Linear(5, 3)),
        nn.Sequential(Blocks(*(nn.Linear(3, 3) for _ in range(9))), Blocks(*(nn.Linear(4, 4) for _ in range(5)))),
        Blocks(*(nn.Sequential(Blocks(*(nn.Linear(3, 3) for _ in range(5)))) for _ in range(7))),
        Blocks(nn.Linear(3, 5), *(nn.Linear(5, 5, bias=place % 3 == 1) for place in range(13)), nn.Linear(5, 3)),
        Blocks(nn.Linear(3, 3)),
        nn.Linear(4, 4),
    ],
    ids=["equal", "ends differ", "two stacks", "stack of stacks", "every third", "one", "none"],
)
def test_a_sum_over_layers_is_that_of_all(module):
    assert extrapolate(module, lambda: linear_bytes(module)) == linear_bytes(module)


def test_few_layers_run_and_all_are_there_afterwards():
    module = Blocks(*(nn.Linear(3, 3) for _ in range(9)))
    layers, lengths = module.layers, []

    def count() -> tuple[int]:
        lengths.append(len(module.layers))
        return linear_bytes(module)

    extrapolate(module, count)
    assert lengths == [1, 2]
    assert module.layers is layers
    assert len(layers) == 9


def different_setting() -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1 * place)) for place in range(6)]
    return layers


def different_gradients() -> list[nn.Module]:
    return [nn.Linear(3, 3).requires_grad_(place in (0, 1, 3)) for place in range(6)]


def different_hooks() -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Linear(3, 3) for _ in range(6)]
    for layer in (layers[0], layers[1], layers[3]):
        layer.register_forward_pre_hook(lambda layer, args: None)
    return layers


def shortening() -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(8, 8), nn.Conv1d(8, 8, 2, stride=2)) for _ in range(6)]


@pytest.mark.parametrize("make", [different_setting, different_gradients, different_hooks, shortening])
def test_layers_that_differ_all_run(make):
    module, lengths = Blocks(*make()), []
    extrapolate(module, lambda: (lengths.append(len(module.layers)), (0,))[1])
    assert lengths == [6]


@pytest.mark.parametrize(
    ("name", "checkpointing"), [("qwen_audio", False), ("audio_flamingo", True), ("pengi", True), ("gama", False)]
)
def test_a_published_system_counts_as_with_all_its_layers(name, checkpointing, monkeypatch):
    """A live encoder that trains, cross-attention in every layer, GPT-2, a Q-Former with cross-attention
    in every second layer; at their real sizes."""
    recipe = load_recipe(name, [f"stages.0.gradient_checkpointing={str(checkpointing).lower()}"])
    first = recipe.stages[0].name
    (short,) = plan_memory(recipe, live_encoder=True, only=first)
    monkeypatch.setattr(memory, "extrapolate", lambda module, count: tuple(count()))
    assert plan_memory(recipe, live_encoder=True, only=first) == (short,)
