"""A layout: under which names a published system's code saves the tensors of our model.

Every tensor of ours is one of theirs, or several of theirs one behind the other on the first axis (query, key and value
in one matrix). So a layout reads both ways, and nothing is left to `strict=False`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lalm.errors import CheckpointError

SHOWN_NAMES = 6
"""Names that an error lists of each kind."""


@dataclass(frozen=True)
class Layout:
    """How a published system names what we name otherwise.

    Attributes:
        parts: the parts of our model that its checkpoint holds.
        renames: (pattern of our name, their names for it); the first that matches a whole name counts, and its groups
            are filled in.
        constants: patterns of their names that hold no weights but tables that both compute by themselves.
        unread: patterns of their names that their code saves and that change nothing it computes; ours has no place for
            them.
        encoder_settings: what the recipe's encoder is set to, because the weights were trained so. The encoder itself
            is in the checkpoint where `parts` has it.
        projector_settings: the same of the projector.
    """

    parts: tuple[str, ...]
    renames: tuple[tuple[str, tuple[str, ...]], ...]
    constants: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    encoder_settings: Mapping[str, Any] = field(default_factory=dict)
    projector_settings: Mapping[str, Any] = field(default_factory=dict)

    def their_names(self, ours: str) -> tuple[str, ...]:
        """Their names of one of our tensors.

        Raises:
            CheckpointError: if the layout has none, because the recipe has a part that the system has not.
        """
        for pattern, theirs in self.renames:
            if (match := re.fullmatch(pattern, ours)) is not None:
                return tuple(match.expand(name) for name in theirs)
        raise CheckpointError(
            f"'{ours}': the released checkpoint has no such tensor. The recipe asks for a part that the published "
            "system has not; take the shipped recipe of the system, or undo the override."
        )


def to_ours(official: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout, where: str) -> dict:
    """Their tensors under our names, each of the shape of its namesake in `wanted`, in float32.

    Args:
        where: the file, for errors.

    Raises:
        CheckpointError: if a name is missing or left over, or a shape differs; both sides are listed.
    """
    names = {ours: layout.their_names(ours) for ours in wanted}
    expected = {theirs for group in names.values() for theirs in group}
    passed_over = {name for name in official if any(re.fullmatch(p, name) for p in (*layout.constants, *layout.unread))}
    missing, left_over = sorted(expected - official.keys()), sorted(official.keys() - expected - passed_over)
    problems = []
    if missing:
        problems.append(f"missing in the file ({len(missing)}): {_some(missing)}")
    if left_over:
        problems.append(f"left over in the file ({len(left_over)}): {_some(left_over)}")
    state: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        if not all(name in official for name in theirs):
            continue
        try:
            tensor = torch.cat([official[name] for name in theirs]) if len(theirs) > 1 else official[theirs[0]]
        except RuntimeError:
            problems.append(f"{', '.join(theirs)}: shapes {[tuple(official[name].shape) for name in theirs]} do not "
                            "join on the first axis")  # fmt: skip
            continue
        if tensor.shape != wanted[ours].shape:
            problems.append(
                f"{' + '.join(theirs)} is {tuple(tensor.shape)} in the file, the recipe's {ours} is "
                f"{tuple(wanted[ours].shape)}"
            )
        state[ours] = tensor.to(torch.float32)
    if problems:
        raise CheckpointError(f"{where} does not fit the recipe:\n  " + "\n  ".join(problems))
    return state


def to_theirs(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our tensors under their names: what `to_ours` reads back bit by bit."""
    official: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        theirs = layout.their_names(ours)
        for name, piece in zip(theirs, tensor.detach().chunk(len(theirs)), strict=True):
            official[name] = piece.contiguous().clone()
    return official


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (" ..." if len(names) > SHOWN_NAMES else "")
