"""Long stacks of equal layers, made short for a count.

With every further layer of a stack of equal ones a pass holds and computes the same amount more. So counts on one and
on two layers give the count of any number, and a plan of 32 layers costs three. What is repeated may be several
layers: every second one with cross-attention, five of six with a sliding window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

SHORT, LONGER = 1, 2
"""Repetitions that stay; the first, which may make a tensor that the others share, is in both. Stacks of no more than
both together are counted whole."""


@dataclass(frozen=True)
class Stack:
    """A run in a list of a module, of `period` layers that are repeated `count` times."""

    owner: nn.Module
    name: str
    layers: nn.ModuleList
    first: int
    period: int
    count: int

    def shortened(self, count: int) -> nn.ModuleList:
        """The list with `count` repetitions."""
        layers = list(self.layers)
        return nn.ModuleList(
            [*layers[: self.first + count * self.period], *layers[self.first + self.count * self.period :]]
        )


def extrapolate(module: nn.Module, count: Callable[[], Sequence[int]]) -> tuple[int, ...]:
    """What `count` would return of the whole module, from calls on a short one.

    Args:
        count: counts a pass of the module as it is at that moment: numbers that are linear in the number of layers.
    """
    stacks = [stack for stack in _stacks(module) if stack.count > SHORT + LONGER]
    with _short(stacks, [SHORT] * len(stacks)):
        total = base = tuple(count())
    for length in sorted({stack.count for stack in stacks}):
        with _short(stacks, [LONGER if stack.count == length else SHORT for stack in stacks]):
            more = count()
        times = length - SHORT
        total = tuple(sum_ + times * (longer - short) for sum_, longer, short in zip(total, more, base, strict=True))
    return total


def _stacks(owner: nn.Module) -> Iterator[Stack]:
    """The longest run of equal layers in each list of blocks, but for lists inside of blocks."""
    for name, child in owner.named_children():
        if isinstance(child, nn.ModuleList) and all(_is_block(layer) for layer in child):
            looks = [_look(layer) for layer in child]
            yield Stack(owner, name, child, *_longest_run([looks.index(look) for look in looks]))
        else:
            yield from _stacks(child)


def _is_block(layer: nn.Module) -> bool:
    """Whether it returns what it was given, made better: a matrix, and no step that makes sequences shorter."""
    parts = list(layer.modules())
    strides = (part.stride for part in parts if isinstance(part, (nn.Conv1d, nn.Conv2d)))
    return any(isinstance(part, (nn.Linear, Conv1D)) for part in parts) and all(set(by) == {1} for by in strides)


def _longest_run(values: Sequence[int]) -> tuple[int, int, int]:
    """(first, period, count) of the repetition that leaves out most when it is shortened, of the shortest period."""
    best, spared = (0, 1, min(1, len(values))), 0
    for period in range(1, len(values) // SHORT + 1):
        start = 0
        for place in range(period, len(values) + 1):
            if place == len(values) or values[place] != values[place - period]:
                count = (place - start) // period
                if (count - SHORT) * period > spared:
                    best, spared = (start, period, count), (count - SHORT) * period
                start = place - period + 1
    return best


def _look(layer: nn.Module) -> tuple:
    """Equal for layers that differ in nothing but the numbers in their weights and their own place."""
    parts = [(name, type(part), _settings(part)) for name, part in layer.named_modules()]
    weights = [(name, value.shape, value.dtype, value.requires_grad) for name, value in layer.named_parameters()]
    return tuple(parts), tuple(weights)


def _settings(module: nn.Module) -> tuple:
    plain = {name: value for name, value in vars(module).items()
             if isinstance(value, (int, float, str, tuple, type(None))) and name != "layer_idx"}  # fmt: skip
    hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
    return tuple(sorted((name, repr(value)) for name, value in plain.items())), hooks


@contextmanager
def _short(stacks: Sequence[Stack], counts: Sequence[int]) -> Iterator[None]:
    with ExitStack() as changes:
        for stack, count in zip(stacks, counts, strict=True):
            shortened = stack.shortened(count)
            changes.callback(setattr, stack.owner, stack.name, stack.layers)
            setattr(stack.owner, stack.name, shortened)
            config = getattr(stack.owner, "config", None)
            if config is not None and getattr(config, "num_hidden_layers", None) == len(
                stack.layers
            ):  # some go through so many by number
                changes.callback(setattr, config, "num_hidden_layers", len(stack.layers))
                config.num_hidden_layers = len(shortened)
        yield
