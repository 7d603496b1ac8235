"""Who sees whom in packed rows, as slices instead of a mask: what `lalm.model.grouped_attention` computes with.

A row holds groups one after another, a group its prefix and then its branches (see `lalm.model.attention_mask`):

    [P P P P a1 a1 a2 a2 a2 | Q Q Q | padding]

Found once for each batch; all layers use it. Nothing here is as large as a row squared: masks exist for a group alone,
and only where an attention asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lalm.model.attention_mask import PADDING, PREFIX

BUCKET_RATIO = 1.25
"""Groups are padded to the longest of their bucket, which is at most so many times as long."""
SHORT_BUCKET_RATIO = 2.0
"""The same where a call costs more than the padding that it spares."""

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Group:
    """Places `[start, end)` of one row: a prefix up to `prefix_end`, then the branches, each `(start, end)`."""

    row: int
    start: int
    prefix_end: int
    branches: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        return self.branches[-1][1] if self.branches else self.prefix_end

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Bucket:
    """Groups of similar length, padded to the longest: `index [G, L]` are places of the flattened rows (at padding the
    group's first), `is_real [G, L]`, `mask [G, 1, L, L]` is true where a place may look."""

    index: Tensor
    is_real: Tensor
    mask: Tensor


@dataclass(frozen=True)
class PackedRows:
    """The groups of a batch of rows `[R, L]`, and what attention derives from them, kept for the next layer."""

    groups: tuple[Group, ...]
    row_length: int
    device: torch.device
    group_ids: Tensor
    branch_ids: Tensor
    position_ids: Tensor | None
    segments: Tensor
    """`[S, 5]`: row, start, end of each prefix and each branch, start and end of the prefix that a branch sees. In the
    order of groups, the longest first."""
    first_segments: Tensor
    """`[G + 1]`: each group's first segment, and the number of all."""
    _kept: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, group_ids: Tensor, branch_ids: Tensor | None, position_ids: Tensor | None) -> PackedRows:
        """From ids `[R, L]`, group -1 at padding. Without branches every group is a prefix alone.

        Raises:
            ValueError: if the places of a group or a branch do not follow one another, or a prefix follows a branch.
        """
        device, group_ids = group_ids.device, group_ids.cpu()
        branch_ids = torch.zeros_like(group_ids) if branch_ids is None else branch_ids.cpu()
        position_ids = None if position_ids is None else position_ids.cpu().expand_as(group_ids)
        groups = tuple(_groups(group_ids.numpy(), branch_ids.numpy()))
        segments = _segments(groups)
        return cls(groups, group_ids.shape[1], device, group_ids, branch_ids, position_ids, *segments)

    @cached_property
    def reach(self) -> int:
        """The largest distance between two positions of a group, plus one: a window that wide hides nothing."""
        places = [self._positions(group) for group in self.groups]
        return max((int(item.max() - item.min()) + 1 for item in places if len(item)), default=0)

    def buckets(self, window: int | None = None) -> tuple[Bucket, ...]:
        """All groups, padded. With `window` a position sees those less than `window` positions before it."""
        if window is not None and window >= self.reach:
            window = None
        return self.kept(("buckets", window), lambda: self._padded(self.groups, BUCKET_RATIO, window))

    def kept(self, key: Any, make: Callable[[], Kept]) -> Kept:
        """What `make` returned when the key was first asked for: the next layer needs it again."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def few_buckets(self, groups: Sequence[Group]) -> tuple[Bucket, ...]:
        """Some groups, or spans of them, with more padding in fewer buckets."""
        return self._padded(groups, SHORT_BUCKET_RATIO)

    def _padded(self, groups: Sequence[Group], ratio: float, window: int | None = None) -> tuple[Bucket, ...]:
        return tuple(self._bucket(members, window) for members in _similar(groups, ratio))

    def _bucket(self, groups: list[Group], window: int | None) -> Bucket:
        length = max(map(len, groups))
        index, is_real = torch.zeros(len(groups), length, dtype=torch.long), torch.zeros(len(groups), length).bool()
        mask = torch.eye(length, dtype=torch.bool).repeat(len(groups), 1, 1, 1)  # padding looks at itself
        for number, group in enumerate(groups):
            size = len(group)
            index[number] = group.row * self.row_length + group.start
            index[number, :size] += torch.arange(size)
            is_real[number, :size] = True
            branches = self.branch_ids[group.row, group.start : group.end]
            seen = (branches[None, :] == PREFIX) | (branches[None, :] == branches[:, None])
            if window is not None:
                positions = self._positions(group)
                seen &= positions[:, None] - positions[None, :] < window
            mask[number, 0, :size, :size] = seen.tril()
        return Bucket(index.to(self.device), is_real.to(self.device), mask.to(self.device))

    def _positions(self, group: Group) -> Tensor:
        if self.position_ids is None:
            return torch.arange(len(group))
        return self.position_ids[group.row, group.start : group.end]


def _groups(group_ids: np.ndarray, branch_ids: np.ndarray) -> Iterator[Group]:
    for row, (groups, branches) in enumerate(zip(group_ids, branch_ids, strict=True)):
        changes = np.flatnonzero((np.diff(groups) != 0) | (np.diff(branches) != 0)) + 1
        edges = [0, *changes.tolist(), len(groups)]
        runs = ((int(groups[start]), int(branches[start]), start, end) for start, end in pairwise(edges))
        finished: set[int] = set()
        for number, members in groupby(runs, key=itemgetter(0)):
            if number == PADDING:
                continue
            pieces = [run[1:] for run in members]
            names = [branch for branch, _, _ in pieces]
            if number in finished:
                raise ValueError(f"row {row}: the places of group {number} do not follow one another")
            if len(set(names)) < len(names) or PREFIX in names[1:]:
                raise ValueError(f"row {row}: group {number} has a branch in two pieces, or a prefix behind a branch")
            finished.add(number)
            _, start, first_end = pieces[0]
            prefix_end = first_end if names[0] == PREFIX else start
            yield Group(
                row, start, prefix_end, tuple((first, end) for branch, first, end in pieces if branch != PREFIX)
            )


def _segments(groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    segments, firsts = [], [0]
    for group in sorted(groups, key=len, reverse=True):
        if group.prefix_end > group.start:
            segments.append((group.row, group.start, group.prefix_end, 0, 0))
        segments += [(group.row, start, end, group.start, group.prefix_end) for start, end in group.branches]
        firsts.append(len(segments))
    return torch.tensor(segments, dtype=torch.long).view(-1, 5), torch.tensor(firsts)


def _similar(groups: Sequence[Group], ratio: float) -> list[list[Group]]:
    buckets: list[list[Group]] = []
    for group in sorted(groups, key=len, reverse=True):
        if not buckets or len(group) * ratio < len(buckets[-1][0]):
            buckets.append([])
        buckets[-1].append(group)
    return buckets
