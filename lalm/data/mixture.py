"""Which records make up each optimizer step of a stage, and how a step is cut into micro-batches.

The two are apart on purpose: the records of a step follow from the seed alone, never from the number of processes or
from memory; only the cut does. Nothing is drawn at run time, so a resumed run meets the same batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lalm.data.scratch import scratch_array
from lalm.errors import DataError

QUESTIONS_PER_CLIP = 4
"""The most questions about one clip that are drawn together: they share its audio, but a step needs varied clips."""


@dataclass(frozen=True)
class StagePlan:
    """Micro-batches in the order in which a sequential sampler hands them out: by optimizer step, then by
    accumulation, then by process. Process r of W takes the items r, r + W, ... (accelerate's `BatchSamplerShard`)."""

    order: np.ndarray
    """Example of each draw [num_steps * batch_records]."""
    offsets: np.ndarray
    """Start of each micro-batch in `order` [micro-batches + 1]."""
    num_steps: int
    gradient_accumulation_steps: int
    world_size: int
    batch_records: int
    draws_per_epoch: int
    max_micro_batch_tokens: int
    """Positions of the largest micro-batch."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, item: int) -> np.ndarray:
        """Examples of one micro-batch."""
        if not 0 <= item < len(self):
            raise IndexError(f"micro-batch {item} of {len(self)}")
        return self.order[self.offsets[item] : self.offsets[item + 1]]

    def step_records(self, step: int) -> np.ndarray:
        """Examples of one optimizer step, over all processes."""
        return self.order[step * self.batch_records : (step + 1) * self.batch_records]

    @property
    def digest(self) -> str:
        """Changes with any change of the plan; kept with a checkpoint to refuse a resume on other data."""
        sizes = (self.num_steps, self.gradient_accumulation_steps, self.world_size, self.batch_records)
        content = hashlib.sha256(memoryview(self.order))
        content.update(memoryview(self.offsets))
        content.update(repr(sizes).encode())
        return content.hexdigest()


def plan_stage(
    lengths: Sequence[int] | np.ndarray,
    sources: Sequence[str] | Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    *,
    batch_records: int,
    micro_batch_tokens: int,
    steps: int | None = None,
    epochs: float | None = None,
    records: int | None = None,
    audio_seconds: float | None = None,
    seconds: Sequence[float] | np.ndarray = (),
    temperature: float = 1.0,
    seed: int,
    world_size: int = 1,
    groups: Sequence[int] | np.ndarray | None = None,
    prefix_lengths: Sequence[int] | np.ndarray | None = None,
    padded_rows: bool = False,
    names: Sequence[str] | None = None,
    questions_per_clip: int = QUESTIONS_PER_CLIP,
) -> StagePlan:
    """Plans all steps of a stage.

    An epoch draws `weight` times the size of each source, without repeating a record before its source is used up;
    with weights of 1 that is every record once. With a temperature T the shares of the sources are raised to 1/T, at
    the same number of draws. Exactly one of `steps`, `epochs`, `records` (draws) and `audio_seconds` (of all draws)
    says how long the stage is, rounded up to whole steps.

    Args:
        lengths: positions of each example.
        sources: source of each example, or the examples of each source; weights: by source.
        seconds: of audio of each example, for `audio_seconds`.
        groups, prefix_lengths: for shared prefixes, see `packing.sharing`; examples of one group are drawn together,
            up to `questions_per_clip`, and their prefix is counted once.
        padded_rows: a micro-batch costs its rows times the longest (layout `none`) and not the sum of its lengths.
        names: how errors name an example.

    Raises:
        DataError: if there are no examples, one does not fit `micro_batch_tokens`, or a step cannot be shared by the
            processes.
    """
    if len(lengths) == 0:
        raise DataError("no records are left to train on. Check data.sources, their tasks and splits.")
    if sum(budget is not None for budget in (steps, epochs, records, audio_seconds)) != 1:
        raise ValueError("give exactly one of steps, epochs, records and audio_seconds")
    longest = int(np.argmax(lengths))
    if lengths[longest] > micro_batch_tokens:
        raise DataError(
            f"record '{names[longest] if names is not None else longest}' has {lengths[longest]} positions, "
            f"more than micro_batch_tokens = {micro_batch_tokens}. Raise micro_batch_tokens, or lower "
            "data.max_text_tokens or data.max_audio_seconds."
        )
    if batch_records < world_size:
        raise DataError(
            f"batch_records = {batch_records} is less than the {world_size} processes. "
            f"Set batch_records to a multiple of {world_size}."
        )
    shared = groups if questions_per_clip > 1 else None
    members = sources if isinstance(sources, Mapping) else _members(sources)
    stream = _Mixture(members, weights, shared, questions_per_clip, seed, temperature)
    draws = 0.0
    if steps is not None:
        draws = steps * batch_records
    elif epochs is not None:
        draws = epochs * stream.draws_per_epoch
    elif records is not None:
        draws = records
    elif audio_seconds is not None:
        draws = _draws_for(audio_seconds, np.asarray(seconds, np.float64), members, weights, shared,
                           questions_per_clip, seed, temperature)  # fmt: skip
    steps = max(1, math.ceil(draws / batch_records - 1e-9))
    drawn = stream.take(steps * batch_records).reshape(steps, batch_records)
    cut = Cut(np.asarray(lengths), groups, prefix_lengths, padded_rows, micro_batch_tokens)
    accumulation, order, offsets, largest = _cut_all(cut, drawn, world_size)
    return StagePlan(
        order=order,
        offsets=offsets,
        num_steps=steps,
        gradient_accumulation_steps=accumulation,
        world_size=world_size,
        batch_records=batch_records,
        draws_per_epoch=stream.draws_per_epoch,
        max_micro_batch_tokens=largest,
    )


def _members(sources: Sequence[str]) -> dict[str, np.ndarray]:
    source_of = np.asarray(sources)
    return {name: np.flatnonzero(source_of == name) for name in sorted(set(sources))}


class _Mixture:
    """The endless, seeded sequence of examples."""

    def __init__(
        self,
        members: Mapping[str, np.ndarray],
        weights: Mapping[str, float],
        groups: Sequence[int] | np.ndarray | None,
        cap: int,
        seed: int,
        temperature: float = 1.0,
    ):
        self.names = sorted(name for name in members if len(members[name]))
        self.shares = {name: weights.get(name, 1.0) * len(members[name]) for name in self.names}
        total = sum(self.shares.values())
        self.draws_per_epoch = max(1, round(total))
        if temperature != 1.0:
            flattened = {name: share ** (1 / temperature) for name, share in self.shares.items()}
            norm = total / sum(flattened.values())
            self.shares = {name: share * norm for name, share in flattened.items()}
        self.seed = seed
        self.streams = {name: _SourceStream(f"{seed}/{name}", members[name], groups, cap) for name in self.names}

    def take(self, count: int) -> np.ndarray:
        """The first `count` draws."""
        drawn, filled, epoch = scratch_array(count, np.int64), 0, 0
        while filled < count:
            taken = [self.streams[name].take(self._quota(name, epoch)) for name in self.names]
            examples, sizes = (np.concatenate(parts) for parts in zip(*taken, strict=True))
            order = _rng(f"{self.seed}/mixture/{epoch}").permutation(len(sizes))
            shuffled = _rearranged(examples, sizes, order)[: count - filled]
            drawn[filled : filled + len(shuffled)] = shuffled
            filled += len(shuffled)
            epoch += 1
        return drawn

    def _quota(self, name: str, epoch: int) -> int:
        """Draws of a source in an epoch; fractions are carried to the next."""
        share = self.shares[name]
        return math.floor((epoch + 1) * share + 1e-9) - math.floor(epoch * share + 1e-9)


def _draws_for(wanted: float, seconds: np.ndarray, *stream: Any) -> int:
    """Draws until their audio is `wanted` seconds; as many as that takes, epoch after epoch.

    Raises:
        DataError: if no example has audio.
    """
    if len(seconds) == 0 or not seconds.any():
        raise DataError("audio_hours: no record of the stage has audio. Give steps, epochs or records instead.")
    count = max(1, math.ceil(wanted / seconds.mean()))
    while True:
        heard = np.cumsum(seconds[_Mixture(*stream).take(count)])
        if heard[-1] >= wanted - 1e-9:
            return int(np.searchsorted(heard, wanted - 1e-9)) + 1
        count *= 2


class _SourceStream:
    """Passes over one source, each a new shuffle of its clips (or of its records, without groups)."""

    def __init__(self, key: str, members: np.ndarray, groups: Sequence[int] | np.ndarray | None, cap: int):
        self.key, self.members, self.cap = key, members, cap
        self.groups = None if groups is None else np.asarray(groups)
        self.passes = self.place = 0
        self.examples = members[:0]
        """Of this pass, in the order of its units; `place` says how many have been taken."""
        self.ends = np.zeros(0, np.int64)
        """Where each unit of this pass ends."""

    def take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `count` examples, and how many each unit has; a unit that reaches beyond is divided."""
        examples, sizes = [self.members[:0]], [np.zeros(0, np.int64)]
        while count > 0:
            if self.place == len(self.examples):
                self._next_pass()
            stop = min(self.place + count, len(self.examples))
            first, last = np.searchsorted(self.ends, (self.place, stop), side="right")
            cuts = self.ends[first:last]
            if not len(cuts) or cuts[-1] != stop:
                cuts = np.append(cuts, stop)
            examples.append(self.examples[self.place : stop])
            sizes.append(np.diff(cuts, prepend=self.place))
            count -= stop - self.place
            self.place = stop
        return np.concatenate(examples), np.concatenate(sizes)

    def _next_pass(self) -> None:
        rng = _rng(f"{self.key}/{self.passes}")
        examples = self.members[rng.permutation(len(self.members))]
        sizes = np.ones(len(examples), np.int64)
        if self.groups is not None:
            examples, sizes = self._clip_units(examples, self.groups[examples], rng)
        self.examples, self.ends = examples, np.cumsum(sizes)
        self.place, self.passes = 0, self.passes + 1

    def _clip_units(
        self, examples: np.ndarray, groups: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Units of at most `cap` examples of a group, shuffled: the examples in order of unit, and their sizes."""
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        of_group = rank[inverse]  # Groups in the order in which they are met.
        together = np.argsort(of_group, kind="stable")
        counts = np.bincount(of_group)
        within = np.arange(len(examples)) - np.repeat(np.cumsum(counts) - counts, counts)
        sizes = np.diff(np.flatnonzero(within % self.cap == 0), append=len(examples))
        order = rng.permutation(len(sizes))
        return _rearranged(examples[together], sizes, order), sizes[order]


def _rearranged(examples: np.ndarray, sizes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Units of `sizes`, which lie one after the other in `examples`, in another order."""
    if len(sizes) == len(examples):
        return examples[order]
    sizes_after, starts = sizes[order], (np.cumsum(sizes) - sizes)[order]
    moved = np.repeat(starts - (np.cumsum(sizes_after) - sizes_after), sizes_after)
    moved += np.arange(len(examples))
    return examples[moved]


@dataclass
class Cut:
    """How the records of a step are put in bins that each fit the budget."""

    lengths: np.ndarray
    groups: Sequence[int] | np.ndarray | None
    prefixes: Sequence[int] | np.ndarray | None
    padded_rows: bool
    budget: int

    def cost(self, batch: Sequence[int]) -> int:
        """Positions of a micro-batch."""
        if self.padded_rows:
            return int(max(self.lengths[i] for i in batch)) * len(batch)
        units: dict[int, list[int]] = {}
        for index in batch:
            units.setdefault(self._group(index), []).append(index)
        return sum(self._unit_cost(unit) for unit in units.values())

    def bins(self, records: Sequence[int], num_bins: int) -> list[list[int]] | None:
        """`num_bins` micro-batches of one step, none of them empty, the largest first; None if they do not fit."""
        units: dict[int, list[int]] = {}
        for index in records:
            units.setdefault(self._group(index), []).append(int(index))
        pieces = [[i] for i in map(int, records)] if self.padded_rows else list(units.values())
        while True:
            pieces.sort(key=self._unit_cost, reverse=True)
            if len(pieces) >= num_bins:
                filled = self._fill(pieces, num_bins)
                costs = [self.cost(batch) for batch in filled]
                if max(costs) <= self.budget:
                    return [filled[i] for i in sorted(range(num_bins), key=lambda i: -costs[i])]
            largest = next((i for i, piece in enumerate(pieces) if len(piece) > 1), None)
            if largest is None:
                return None
            piece = pieces.pop(largest)
            pieces += [piece[: len(piece) // 2], piece[len(piece) // 2 :]]

    def _fill(self, pieces: list[list[int]], num_bins: int) -> list[list[int]]:
        """Each piece, the largest first, goes where the result is smallest."""
        filled: list[list[int]] = [[] for _ in range(num_bins)]
        costs, tallest = [0] * num_bins, [0] * num_bins
        for piece in pieces:
            size = self._unit_cost(piece)
            if self.padded_rows:
                after = [(len(batch) + 1) * max(top, size) for batch, top in zip(filled, tallest, strict=True)]
            else:
                after = [cost + size for cost in costs]
            chosen = after.index(min(after))
            filled[chosen] += piece
            costs[chosen], tallest[chosen] = after[chosen], max(tallest[chosen], size)
        return filled

    def _group(self, index: int) -> int:
        return int(index) if self.groups is None or self.prefixes is None else int(self.groups[index])

    def _unit_cost(self, unit: Sequence[int]) -> int:
        total = int(sum(self.lengths[i] for i in unit))
        return total if self.prefixes is None else total - (len(unit) - 1) * int(self.prefixes[unit[0]])


def _cut_all(cut: Cut, drawn: np.ndarray, world_size: int) -> tuple[int, np.ndarray, np.ndarray, int]:
    """The least accumulation with which every step fits; the examples in order of micro-batch, where each micro-batch
    starts, and the positions of the largest."""
    steps, batch_records = drawn.shape
    order = scratch_array(drawn.size, np.int64)
    for accumulation in range(1, batch_records // world_size + 1):
        num_bins, place, largest = accumulation * world_size, 0, 0
        offsets = scratch_array(steps * num_bins + 1, np.int64)
        offsets[0] = 0
        for step, records in enumerate(drawn):
            bins = cut.bins(records, num_bins)
            if bins is None:
                break
            largest = max(largest, cut.cost(bins[0]))
            for number, batch in enumerate(bins, start=step * num_bins + 1):
                order[place : place + len(batch)] = batch
                place += len(batch)
                offsets[number] = place
        else:
            return accumulation, order, offsets, largest
    raise DataError(
        f"batch_records = {batch_records} cannot be cut for {world_size} processes into micro-batches of at "
        f"most micro_batch_tokens = {cut.budget} positions. Make batch_records a multiple of {world_size}, "
        "or raise micro_batch_tokens."
    )


def _rng(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
