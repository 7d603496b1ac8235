"""What is known of a recipe's model and of its stages before any weight is read. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderPlan:
    """One encoder: its width `E` and the rate of its steps."""

    name: str
    base: str
    width: int
    sample_rate_hz: int
    steps_per_second: float


@dataclass(frozen=True)
class StagePlan:
    """What one stage trains."""

    name: str
    trained: dict[str, int]
    """Parameters by part, of the parts that train."""

    @property
    def num_trained(self) -> int:
        return sum(self.trained.values())


@dataclass(frozen=True)
class ModelPlan:
    """All that is known of a recipe's model before any weight is read."""

    encoders: tuple[EncoderPlan, ...]
    join: str
    """How several encoders become one sequence; empty for one encoder."""
    states_per_second: float
    """Of all encoders together, over `data.max_audio_seconds`."""
    state_width: int
    positions: dict[float, int]
    """Seconds of audio -> positions `A` of the decoder."""
    positions_per_second: float
    """Over `data.max_audio_seconds`."""
    decoder_width: int
    decoder_layers: int
    vocabulary_size: int
    max_positions: int | None
    """The longest text that the language model was made for."""
    dtype: str
    parameters: dict[str, int]
    """Parameters of each part."""
    stages: tuple[StagePlan, ...]
    problems: tuple[str, ...]
    """Why the recipe cannot train although its parts fit together."""

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters.values())


@dataclass(frozen=True)
class BatchShape:
    """What one micro-batch holds: `rows` of `row_positions`, labels, and clips of one length."""

    rows: int
    row_positions: int
    supervised: int
    clips: int
    clip_seconds: float

    @property
    def positions(self) -> int:
        return self.rows * self.row_positions


@dataclass(frozen=True)
class StageMemory:
    """One stage in one process that holds everything itself; bytes."""

    name: str
    shape: BatchShape
    frozen_weights: int
    trained_weights: int
    largest_layer: int
    """The weights of one decoder layer, or of embeddings: what ZeRO-3 makes whole at a time."""
    gradients: int
    optimizer: int
    activations: int
    flops: int
    """Of one micro-batch, forward and backward."""

    @property
    def weights(self) -> int:
        return self.frozen_weights + self.trained_weights

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations
