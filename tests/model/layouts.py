"""Ids of packed rows, for tests of attention."""

from __future__ import annotations

import torch

from lalm.model.attention_mask import PADDING


def rows_of(*rows: list[list[int]], length: int = 0) -> dict[str, torch.Tensor]:
    """Rows of groups, each `[prefix length, branch length, ...]`, padded to the longest or to `length`."""
    length = max(length, *(sum(map(sum, row)) for row in rows))
    names = ("group_ids", "branch_ids", "position_ids")
    ids = {name: torch.full((len(rows), length), PADDING if name != "position_ids" else 0) for name in names}
    for number, row in enumerate(rows):
        start = 0
        for group, sizes in enumerate(row):
            for branch, size in enumerate(sizes):
                first = 0 if branch == 0 else sizes[0]
                values = (torch.tensor(group), torch.tensor(branch), torch.arange(first, first + size))
                for name, value in zip(names, values, strict=True):
                    ids[name][number, start : start + size] = value
                start += size
    return ids
