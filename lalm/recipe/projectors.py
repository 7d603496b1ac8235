"""What a recipe may say of a projector: one options class a projector, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lalm.audio.lengths import LengthRule, Windows
from lalm.recipe.base import Section


class ProjectorSection(Section):
    """What every projector has: a rule from encoder steps to audio positions."""

    def length_rule(self) -> LengthRule:
        """Encoder steps of a clip -> audio positions `A`."""
        raise NotImplementedError


class QFormerSection(ProjectorSection):
    """Window-level Q-Former of SALMONN (arXiv 2310.13289): `queries` for each window of `window_steps`."""

    name: Literal["qformer"] = "qformer"
    window_steps: int = Field(default=17, gt=0)
    queries: int = Field(default=1, gt=0)
    partial_window: Literal["keep", "drop"] = "keep"
    num_layers: int = Field(default=2, gt=0)
    hidden_size: int = Field(default=768, gt=0)
    num_heads: int = Field(default=12, gt=0)
    intermediate_size: int = Field(default=3072, gt=0)
    cross_attention_every: int = Field(default=1, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def length_rule(self) -> LengthRule:
        return Windows(size=self.window_steps, outputs=self.queries, partial=self.partial_window)


class MlpSection(ProjectorSection):
    """Frame stacking and an MLP (SLAM-LLM): `stack_steps` neighbours side by side, then two linear layers."""

    name: Literal["mlp"] = "mlp"
    stack_steps: int = Field(default=5, gt=0)
    hidden_size: int = Field(default=2048, gt=0)
    num_layers: int = Field(default=2, gt=0)
    activation: Literal["relu", "gelu"] = "relu"
    normalise: bool = True
    """LayerNorm before the first and after the last layer."""

    def length_rule(self) -> LengthRule:
        return Windows(size=self.stack_steps)


ProjectorOptions = Annotated[QFormerSection | MlpSection, Field(discriminator="name")]
