"""Sequences that hold no items: a choice of another sequence's items, or those items changed as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

T = TypeVar("T")


class ReadSequence(Sequence[T], Generic[T]):
    """A sequence whose items are made when they are asked for. A slice is a list."""

    def read(self, index: int) -> T:
        """Item `index`, from 0 to the length - 1."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.read(place) for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return self.read(place)

    def __iter__(self) -> Iterator[T]:
        return (self.read(place) for place in range(len(self)))


class Picked(ReadSequence[T]):
    """The items of `base` at `places`, an array of integers."""

    def __init__(self, base: Sequence[T], places: np.ndarray):
        self.base, self.places = base, places

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> T:
        return self.base[int(self.places[index])]


class Changed(ReadSequence[T]):
    """The items of `base`, each through `change` whenever it is read."""

    def __init__(self, base: Sequence[Any], change: Callable[[Any], T]):
        self.base, self.change = base, change

    def __len__(self) -> int:
        return len(self.base)

    def read(self, index: int) -> T:
        return self.change(self.base[index])


class Joined(ReadSequence[T]):
    """Several sequences, one after the other."""

    def __init__(self, parts: Sequence[Sequence[T]]):
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> T:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part][index - int(self.starts[part])]

    def __iter__(self) -> Iterator[T]:
        return (item for part in self.parts for item in part)
