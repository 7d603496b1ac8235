"""From the examples of one micro-batch to the tensors that the model reads, in one of three layouts.

    none            [a a a . .]   one example a row, padded at the right
                    [b b b b b]
    rows            [a a a b b b b b]   several examples a row, each sees itself only
    shared_prefix   [P P P P a1 a1 a2 a2 a2]   questions about the same audio: the common prompt prefix P (with the
                    audio) is laid out once; each branch sees P and itself, and its positions continue from P

The packed layouts spread the examples over as many rows as make dense attention cheapest; for an attention that reads
each group alone they put all of them in one row, without any padding.

In the packed layouts `group_ids` and `branch_ids` [R, L] say who sees whom: a token attends to an earlier token of
its own group that is of branch 0 (the prefix) or of its own branch. Every example keeps the loss that it has alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from lalm.data.scratch import scratch_array

if TYPE_CHECKING:
    from lalm.data.examples import Example

Layout = Literal["none", "rows", "shared_prefix"]

IGNORED = -100
"""Label of a position without loss, as transformers has it."""
PADDING = -1
"""Group and branch of a padded position, which attends to itself alone."""
ATTENTION_POSITIONS = 1024
"""Row length at which attention costs about as much as the rest of the decoder (dense masked attention on a CPU):
decides how many rows a micro-batch is laid out in."""


@dataclass(frozen=True)
class PackedBatch:
    """`tensors`: keyword arguments of the model's forward; `audio`: (example, clip of the example) of every audio span
    in row-major order of `input_ids`; `owners` [R, L]: the example of each position, -1 at padding (a shared prefix
    counts as its first example's)."""

    tensors: dict[str, torch.Tensor]
    audio: list[tuple[int, int]]
    owners: np.ndarray


def pack(examples: Sequence[Example], layout: Layout, pad_token_id: int, *, in_one_row: bool = False) -> PackedBatch:
    """Lays out the examples of one micro-batch; with `in_one_row` the packed layouts make one row of them.

    Returns tensors input_ids, labels, position_ids [R, L] (int64), and either attention_mask (layout `none`) or
    group_ids and branch_ids [R, L].

    Raises:
        ValueError: if an example is empty or has loss on its first position.
    """
    if not examples:
        raise ValueError("a micro-batch needs at least one example")
    for example in examples:
        if len(example.input_ids) == 0 or example.labels[0] != IGNORED:
            raise ValueError(f"record '{example.record.id}': the first position must exist and have no label")
    if layout == "none":
        rows = [[_whole(index, example)] for index, example in enumerate(examples)]
    elif layout == "rows":
        rows = _arrange([_whole(index, example) for index, example in enumerate(examples)], in_one_row)
    elif layout == "shared_prefix":
        rows = _arrange(_shared_blocks(examples), in_one_row)
    else:
        raise ValueError(f"unknown layout '{layout}'. Accepted: none, rows, shared_prefix.")
    return _stack(rows, pad_token_id, masked=layout == "none")


def share_key(example: Example) -> tuple | None:
    """Examples with the same key may share a prefix: same clips, same tokens up to the end of the last clip.

    None where nothing can be shared: no audio, or loss before the end of the audio (several turns, loss on inputs).
    """
    if not example.audio_spans:
        return None
    end = example.audio_spans[-1][1]
    if end > prefix_limit(example):
        return None
    return (example.audio_hashes, example.input_ids[:end].tobytes())


def share_hash(example: Example) -> int:
    """64 bits of the `share_key`, never 0; 0 where there is none."""
    key = share_key(example)
    if key is None:
        return 0
    digest = hashlib.blake2b(digest_size=8)
    for part in (*key[0], key[1]):
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"|")
    return int.from_bytes(digest.digest(), "little", signed=True) | 1


def common_prefix_length(examples: Sequence[Example]) -> int:
    """Positions that all examples of one `share_key` have in common and that can be laid out once.

    The prefix ends at least one position before the first label of any example: the position after the prefix is
    predicted from the prefix, which belongs to all branches, so it must carry no loss.
    """
    first = examples[0].input_ids
    length = min(prefix_limit(example) for example in examples)
    for example in examples[1:]:
        differing = np.flatnonzero(example.input_ids[:length] != first[:length])
        if len(differing):
            length = int(differing[0])
    return length


def sharing(
    examples: Sequence[Example], keys: np.ndarray | None = None, limits: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For planning: the group [N] of each example (examples of a group may share) and the positions [N] shared by all
    of its group. A subset of a group shares at least as much.

    Args:
        keys, limits: `share_hash` and `prefix_limit` of the examples, where they are known already.
    """
    count = len(examples)
    keys = np.fromiter(map(share_hash, examples), np.int64, count) if keys is None else keys
    limits = np.fromiter(map(prefix_limit, examples), np.int64, count) if limits is None else limits
    order = np.argsort(keys, kind="stable").astype(np.int32)
    opens = np.ones(count, bool)
    opens[1:] = (keys[order[1:]] != keys[order[:-1]]) | (keys[order[1:]] == 0)
    starts = np.flatnonzero(opens)
    numbers = np.empty(len(starts), np.int32)
    numbers[np.argsort(order[starts])] = np.arange(len(starts))  # Groups count from the first example on.
    groups, prefixes = scratch_array(count, np.int32), scratch_array(count, np.int32)
    sizes = np.diff(starts, append=count)
    groups[order] = np.repeat(numbers, sizes)
    prefixes[:] = 0
    for run in np.flatnonzero(sizes > 1):
        members = order[starts[run] : starts[run] + sizes[run]]
        prefixes[members] = _length_shared(examples, members, int(limits[members].min()))
    return groups, prefixes


def _length_shared(examples: Sequence[Example], members: np.ndarray, limit: int) -> int:
    """`common_prefix_length` of some examples of one `share_key`, one of them in memory at a time."""
    first = examples[int(members[0])]
    ids, least = first.input_ids, first.audio_spans[-1][1]
    for member in members[1:]:
        if limit <= least:  # All have the same positions up to the end of the last clip.
            break
        differing = np.flatnonzero(examples[int(member)].input_ids[:limit] != ids[:limit])
        if len(differing):
            limit = int(differing[0])
    return limit


@dataclass(frozen=True)
class Block:
    """One group, ready to be put in a row."""

    input_ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    branches: np.ndarray
    owners: np.ndarray
    audio: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.input_ids)


def _arrange(blocks: Sequence[Block], in_one_row: bool) -> list[list[Block]]:
    return [list(blocks)] if in_one_row else balance_rows(blocks)


def balance_rows(blocks: Sequence[Block]) -> list[list[Block]]:
    """Puts blocks in as many rows as make decoding cheapest: fewer, longer rows cost attention, more rows padding."""
    best, best_cost = [list(blocks)], float("inf")
    for num_rows in range(1, len(blocks) + 1):
        rows: list[list[Block]] = [[] for _ in range(num_rows)]
        filled = [0] * num_rows
        for block in sorted(blocks, key=len, reverse=True):
            lightest = filled.index(min(filled))
            rows[lightest].append(block)
            filled[lightest] += len(block)
        longest = max(filled)
        cost = num_rows * longest * (1 + longest / ATTENTION_POSITIONS)
        if cost < best_cost:
            best, best_cost = rows, cost
    return best


def prefix_limit(example: Example) -> int:
    """The longest prefix after which at least one unlabelled position stands before the first label."""
    labelled = np.flatnonzero(example.labels != IGNORED)
    return int(labelled[0]) - 1 if len(labelled) else len(example.labels) - 1


def _whole(index: int, example: Example) -> Block:
    length = len(example.input_ids)
    return Block(
        example.input_ids,
        example.labels,
        np.arange(length),
        np.zeros(length, np.int64),
        np.full(length, index, np.int64),
        [(index, clip) for clip in range(len(example.audio_spans))],
    )


def _shared_blocks(examples: Sequence[Example]) -> list[Block]:
    members: dict[tuple | int, list[int]] = {}
    for index, example in enumerate(examples):
        key = share_key(example)
        members.setdefault(index if key is None else key, []).append(index)
    return [
        _branched(indices, examples) if len(indices) > 1 else _whole(indices[0], examples[indices[0]])
        for indices in members.values()
    ]


def _branched(indices: list[int], examples: Sequence[Example]) -> Block:
    group = [examples[index] for index in indices]
    prefix = common_prefix_length(group)
    ids, labels = [group[0].input_ids[:prefix]], [group[0].labels[:prefix]]
    positions, branches = [np.arange(prefix)], [np.zeros(prefix, np.int64)]
    owners = [np.full(prefix, indices[0], np.int64)]
    for number, (index, example) in enumerate(zip(indices, group, strict=True), start=1):
        if example.labels[prefix] != IGNORED:
            raise ValueError(f"record '{example.record.id}': a branch must open with an unlabelled position")
        ids.append(example.input_ids[prefix:])
        labels.append(example.labels[prefix:])
        positions.append(np.arange(prefix, len(example.input_ids)))
        branches.append(np.full(len(example.input_ids) - prefix, number))
        owners.append(np.full(len(example.input_ids) - prefix, index))
    audio = [(indices[0], clip) for clip in range(len(group[0].audio_spans))]
    return Block(*(np.concatenate(parts) for parts in (ids, labels, positions, branches, owners)), audio)


def _stack(rows: list[list[Block]], pad_token_id: int, *, masked: bool) -> PackedBatch:
    shape = (len(rows), max(sum(map(len, row)) for row in rows))
    ids, labels = np.full(shape, pad_token_id, np.int64), np.full(shape, IGNORED, np.int64)
    positions = np.zeros(shape, np.int64)
    groups, branches, owners = (np.full(shape, PADDING, np.int64) for _ in range(3))
    audio = []
    for number, row in enumerate(rows):
        start = 0
        for group, block in enumerate(row):
            place = (number, slice(start, start + len(block)))
            ids[place], labels[place], positions[place] = block.input_ids, block.labels, block.positions
            groups[place], branches[place], owners[place] = group, block.branches, block.owners
            audio += block.audio
            start += len(block)
    tensors = {"input_ids": ids, "labels": labels, "position_ids": positions}
    if masked:
        tensors["attention_mask"] = (groups != PADDING).astype(np.int64)
    else:
        tensors |= {"group_ids": groups, "branch_ids": branches}
    return PackedBatch({name: torch.from_numpy(value) for name, value in tensors.items()}, audio, owners)
