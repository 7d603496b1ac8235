"""What a recipe may say of a projector: one options class a projector, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lalm.audio.lengths import Chain, Constant, Conv, LengthRule, Windows
from lalm.recipe.base import Section


class ProjectorSection(Section):
    """What every projector has: a rule from encoder steps to audio positions."""

    def length_rule(self) -> LengthRule:
        """Encoder steps of a clip -> audio positions `A`."""
        raise NotImplementedError


class QFormerSection(ProjectorSection):
    """Window-level Q-Former of SALMONN (arXiv 2310.13289): `queries` for each window of `window_steps`.

    With `window_steps: null` the queries read the whole clip at once, as in BLIP-2 (arXiv 2301.12597) and COSMIC.
    """

    name: Literal["qformer"] = "qformer"
    window_steps: Annotated[int, Field(gt=0)] | None = 17
    queries: int = Field(default=1, gt=0)
    partial_window: Literal["keep", "drop"] = "keep"
    num_layers: int = Field(default=2, gt=0)
    hidden_size: int = Field(default=768, gt=0)
    num_heads: int = Field(default=12, gt=0)
    intermediate_size: int = Field(default=3072, gt=0)
    cross_attention_every: int = Field(default=1, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def length_rule(self) -> LengthRule:
        if self.window_steps is None:
            return Constant(outputs=self.queries)
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


class LinearSection(ProjectorSection):
    """One linear layer over averaged steps: MusiLingo (arXiv 2309.08730), LLark (2310.07160), LTU (2305.10790)."""

    name: Literal["linear"] = "linear"
    pool_steps: int = Field(default=1, gt=0)
    """Steps that are averaged into one position."""
    input_norm: Literal["none", "plain", "affine"] = "none"
    """LayerNorm before the layer: without (`plain`, LTU) or with learned scale and shift."""
    input_scale: float = Field(default=1.0, gt=0)
    """A constant that the states are multiplied by (LTU divides by 50)."""

    def length_rule(self) -> LengthRule:
        return Windows(size=self.pool_steps)


class ConvSection(ProjectorSection):
    """Strided convolutions with gated linear units and a bottleneck adapter (BLSP, arXiv 2309.00916)."""

    name: Literal["conv"] = "conv"
    num_layers: int = Field(default=3, gt=0)
    kernel_size: int = Field(default=5, gt=0)
    stride: int = Field(default=2, gt=0)
    hidden_size: int | None = Field(default=None, gt=0)
    """Width between the convolutions; the decoder's by default."""
    adapter_size: int | None = Field(default=512, gt=0)
    """Width of the residual bottleneck behind them; none with null."""

    def length_rule(self) -> LengthRule:
        layer = Conv(kernel=self.kernel_size, stride=self.stride, padding=self.kernel_size // 2)
        return Chain(rules=(layer,) * self.num_layers)


class PerceiverSection(ProjectorSection):
    """Perceiver resampler of Flamingo (arXiv 2204.14198): latents that read the clip and themselves."""

    name: Literal["perceiver"] = "perceiver"
    latents: int = Field(default=64, gt=0)
    num_layers: int = Field(default=6, gt=0)
    hidden_size: int = Field(default=1024, gt=0)
    num_heads: int = Field(default=8, gt=0)
    feed_forward_factor: int = Field(default=4, gt=0)

    def length_rule(self) -> LengthRule:
        return Constant(outputs=self.latents)


class MapperSection(ProjectorSection):
    """Mapping network of Pengi (arXiv 2305.11834): one pooled vector becomes a prefix of `prefix_length` positions."""

    name: Literal["mapper"] = "mapper"
    prefix_length: int = Field(default=40, gt=0)
    num_layers: int = Field(default=8, gt=0)
    num_heads: int = Field(default=8, gt=0)
    feed_forward_factor: int = Field(default=2, gt=0)

    def length_rule(self) -> LengthRule:
        return Constant(outputs=self.prefix_length)


ProjectorOptions = Annotated[
    QFormerSection | MlpSection | LinearSection | ConvSection | PerceiverSection | MapperSection,
    Field(discriminator="name"),
]
