"""The draws of one question after another, each as `seeded(*names)` gives them, from one generator that is set anew.

A generator is set when it is first drawn from: most families see that they have no question before that, and to set
one takes about as long as a question. What is drawn most is drawn without the calls that `random` makes in between.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from data_builders.clips import seed_of

T = TypeVar("T")
POOL_SIZE, LARGE_POOL_SIZE, LARGE_SAMPLE = 21, 85, 6
"""`random.sample` copies a population of up to 21, or of up to 85 where six or more are drawn."""


class Draws(random.Random):
    """A generator for many questions: `begin` names the next one."""

    def __init__(self) -> None:
        super().__init__(0)
        self._names: tuple[object, ...] = ()
        self._bits, self._fraction = super().getrandbits, super().random
        self.untouched = True
        """Whether nothing was drawn since `begin`."""

    def begin(self, *names: object) -> None:
        """From here on the draws are those of `seeded(*names)`."""
        self._names = names
        self.untouched = True

    def getrandbits(self, k: int, /) -> int:
        if self.untouched:
            self._set()
        return self._bits(k)

    def random(self) -> float:
        if self.untouched:
            self._set()
        return self._fraction()

    def choice(self, seq: Any) -> Any:
        return seq[self.randrange(len(seq))]

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        if stop is not None or start < 1:
            return super().randrange(start, stop, step)
        if self.untouched:
            self._set()
        bits, num_bits = self._bits, start.bit_length()
        drawn = bits(num_bits)
        while drawn >= start:
            drawn = bits(num_bits)
        return drawn

    def sample(self, population: Sequence[T], k: int, *, counts: Any = None) -> list[T]:  # type: ignore[override]
        left = len(population)
        if counts is not None or not 0 <= k <= left or left > (LARGE_POOL_SIZE if k >= LARGE_SAMPLE else POOL_SIZE):
            return super().sample(population, k, counts=counts)
        if self.untouched and k:
            self._set()
        pool, found, bits = list(population), [], self._bits
        for _ in range(k):
            num_bits = left.bit_length()
            drawn = bits(num_bits)
            while drawn >= left:
                drawn = bits(num_bits)
            left -= 1
            found.append(pool[drawn])
            pool[drawn] = pool[left]
        return found

    def _set(self) -> None:
        self.untouched, self.gauss_next = False, None
        seed = seed_of(*self._names)
        # What `random.Random(seed)` comes to for bytes, without its questions.
        super(random.Random, self).seed(int.from_bytes(seed + hashlib.sha512(seed).digest(), "big"))
