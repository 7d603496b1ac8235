"""The only length arithmetic of the project: how many samples, frames, steps and positions a clip has.

An encoder and a projector each state their rule as data; the rules chain into one, samples -> audio positions `A`,
which is saved with the processor and swept against the real modules in the tests. Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Rule(BaseModel, ABC):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def count(self, length: int) -> int:
        """The output length for an input of `length`; 0 for 0.

        Raises:
            ValueError: if `length` is negative.
        """
        if length < 0:
            raise ValueError(f"a length cannot be negative, got {length}")
        return self._count(length) if length else 0

    @abstractmethod
    def _count(self, length: int) -> int: ...


class Resample(_Rule):
    """Samples at one rate -> samples at another (ceiling, as soxr gives)."""

    op: Literal["resample"] = "resample"
    from_hz: int = Field(gt=0)
    to_hz: int = Field(gt=0)

    def _count(self, length: int) -> int:
        return -(-length * self.to_hz // self.from_hz)


class Hops(_Rule):
    """Centred frames: one for each started hop (Whisper's log-mel, after its last frame is dropped)."""

    op: Literal["hops"] = "hops"
    hop_samples: int = Field(gt=0)

    def _count(self, length: int) -> int:
        return -(-length // self.hop_samples)


class Frames(_Rule):
    """Kaldi frames that lie wholly inside the signal (`snip_edges`)."""

    op: Literal["frames"] = "frames"
    window_samples: int = Field(gt=0)
    hop_samples: int = Field(gt=0)

    def _count(self, length: int) -> int:
        return 0 if length < self.window_samples else 1 + (length - self.window_samples) // self.hop_samples


class Conv(_Rule):
    """A 1-D convolution or pooling: PyTorch's output length."""

    op: Literal["conv"] = "conv"
    kernel: int = Field(gt=0)
    stride: int = Field(gt=0)
    padding: int = Field(default=0, ge=0)

    def _count(self, length: int) -> int:
        return max(0, (length + 2 * self.padding - self.kernel) // self.stride + 1)


class Scale(_Rule):
    """`times` outputs for each whole group of `per` inputs (BEATs: 8 patches for each 16 frames)."""

    op: Literal["scale"] = "scale"
    times: int = Field(default=1, gt=0)
    per: int = Field(default=1, gt=0)

    def _count(self, length: int) -> int:
        return self.times * (length // self.per)


class Windows(_Rule):
    """`outputs` positions for each window of `size` steps.

    `partial`: a last window that is not full is kept at full cost ("keep") or left out ("drop"; but a clip shorter
    than one window is always kept). Source: window-level Q-Former, SALMONN (arXiv 2310.13289).
    """

    op: Literal["windows"] = "windows"
    size: int = Field(gt=0)
    outputs: int = Field(default=1, gt=0)
    partial: Literal["keep", "drop"] = "keep"

    def _count(self, length: int) -> int:
        whole = length // self.size
        windows = -(-length // self.size) if self.partial == "keep" else max(whole, 1)
        return self.outputs * windows


class Constant(_Rule):
    """The same number of positions for any clip that is not empty (a global Q-Former's queries)."""

    op: Literal["constant"] = "constant"
    outputs: int = Field(gt=0)

    def _count(self, length: int) -> int:
        return self.outputs


class AtMost(_Rule):
    """No more than `limit`."""

    op: Literal["at_most"] = "at_most"
    limit: int = Field(gt=0)

    def _count(self, length: int) -> int:
        return min(length, self.limit)


class Chunks(_Rule):
    """The clip is cut every `size` inputs; each chunk follows `rule`; the counts add up."""

    op: Literal["chunks"] = "chunks"
    size: int = Field(gt=0)
    rule: LengthRule

    def _count(self, length: int) -> int:
        whole, rest = divmod(length, self.size)
        return whole * self.rule.count(self.size) + self.rule.count(rest)


class Parallel(_Rule):
    """Several rules over the same input, joined: the longest (streams padded and aligned), or the sum."""

    op: Literal["parallel"] = "parallel"
    rules: tuple[LengthRule, ...] = Field(min_length=1)
    join: Literal["max", "sum"] = "max"

    def _count(self, length: int) -> int:
        counts = [rule.count(length) for rule in self.rules]
        return max(counts) if self.join == "max" else sum(counts)


class Chain(_Rule):
    """Rules one after another."""

    op: Literal["chain"] = "chain"
    rules: tuple[LengthRule, ...] = ()

    def _count(self, length: int) -> int:
        for rule in self.rules:
            length = rule.count(length)
        return length


LengthRule = Annotated[
    Resample | Hops | Frames | Conv | Scale | Windows | Constant | AtMost | Chunks | Parallel | Chain,
    Field(discriminator="op"),
]
"""Any of the rules above, told apart by `op` when read from JSON."""

for _model in (Chunks, Parallel, Chain):
    _model.model_rebuild()


def chunk_bounds(num_samples: int, chunk_samples: int) -> list[tuple[int, int]]:
    """Start and end of the pieces that a clip of `num_samples` is cut into; none for an empty clip."""
    return [(start, min(start + chunk_samples, num_samples)) for start in range(0, num_samples, chunk_samples)]
