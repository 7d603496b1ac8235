"""What a recipe may say of a projector: one options class a projector, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lalm.audio.lengths import Chain, Constant, Conv, LengthRule, Parallel, Windows
from lalm.recipe.base import Section
from lalm.recipe.projector_presets import PRESETS


class ProjectorSection(Section):
    """What every projector has: a rule from encoder steps to audio positions."""

    @model_validator(mode="before")
    @classmethod
    def _take_preset(cls, value: Any) -> Any:
        """Puts the preset's fields under those that the recipe gives; an unknown preset is the field's to refuse."""
        if not isinstance(value, dict):
            return value
        return {**PRESETS.get(value.get("name", ""), {}).get(value.get("preset") or "", {}), **value}

    def length_rule(self) -> LengthRule:
        """Encoder steps of a clip -> audio positions `A`."""
        raise NotImplementedError

    @property
    def num_layer_inputs(self) -> int:
        """Layers of the encoder that the projector reads, each as a state of its own."""
        return 1

    @property
    def needs_question(self) -> bool:
        """Whether the text of the turn that a clip stands in changes the clip's audio positions."""
        return False


class QFormerSection(ProjectorSection):
    """Window-level Q-Former of SALMONN (arXiv 2310.13289): `queries` for each window of `window_steps`.

    With `window_steps: null` the queries read the whole clip at once, as in BLIP-2 (arXiv 2301.12597) and COSMIC.
    """

    name: Literal["qformer"] = "qformer"
    base: str | None = None
    """A whole audio language model whose projector this is at the start (`base:` of a recipe); random by default."""
    preset: Literal["salmonn", "blip2", "slam_llm", "x_instructblip", "granite_speech"] | None = None
    """Published sizes; fields that stand beside it win."""
    window_steps: Annotated[int, Field(gt=0)] | None = 17
    queries: int = Field(default=1, gt=0)
    partial_window: Literal["keep", "drop"] = "keep"
    num_layers: int = Field(default=2, gt=0)
    hidden_size: int = Field(default=768, gt=0)
    num_heads: int = Field(default=12, gt=0)
    intermediate_size: int = Field(default=3072, gt=0)
    cross_attention_every: int = Field(default=1, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    input_norm: Literal["joined", "each", "none"] = "joined"
    """One LayerNorm over the states of all encoders, one for each encoder (SALMONN), or none (Granite Speech)."""
    filler: Literal["masked", "attended"] = "masked"
    """Whether the zeros that fill a clip's last window are hidden from the queries, or read (Granite Speech)."""
    reads_question: bool = False
    """Queries and question attend to one another, so that the queries look for what is asked (InstructBLIP, arXiv
    2305.06500). The question is the text of the turn that the clip stands in."""

    @model_validator(mode="after")
    def _has_filler(self) -> QFormerSection:
        if self.filler == "attended" and self.window_steps is None:
            raise ValueError("filler: attended needs `window_steps`: without windows nothing is filled up")
        return self

    @property
    def needs_question(self) -> bool:
        return self.reads_question

    def length_rule(self) -> LengthRule:
        if self.window_steps is None:
            return Constant(outputs=self.queries)
        return Windows(size=self.window_steps, outputs=self.queries, partial=self.partial_window)


class MlpSection(ProjectorSection):
    """Frame stacking and an MLP (SLAM-LLM): `stack_steps` neighbours side by side, then two linear layers."""

    name: Literal["mlp"] = "mlp"
    base: str | None = None
    """A whole audio language model whose projector this is at the start (`base:` of a recipe); random by default."""
    preset: Literal["slam_llm", "voxtral"] | None = None
    stack_steps: int = Field(default=5, gt=0)
    hidden_size: int = Field(default=2048, gt=0)
    num_layers: int = Field(default=2, gt=0)
    activation: Literal["relu", "gelu"] = "relu"
    normalise: bool = True
    """LayerNorm before the first and after the last layer."""
    bias: bool = True
    """Of the linear layers."""
    layers_read: int = Field(default=1, ge=1, le=64)
    """Layers of the encoder side by side on the width (its `layers: [...]` with `layers_as: separate`)."""
    ends_with: Literal["nothing", "mean", "statistics"] = "nothing"
    """One position more, that stands for the whole clip: the mean of its others, or a linear layer on mean and
    deviation of its states (statistics pooling). The contrastive objective brings either to the clip's text."""

    @property
    def num_layer_inputs(self) -> int:
        return self.layers_read

    def length_rule(self) -> LengthRule:
        windows = Windows(size=self.stack_steps)
        return Parallel(rules=(windows, Constant(outputs=1)), join="sum") if self.ends_with != "nothing" else windows


class LinearSection(ProjectorSection):
    """One linear layer over averaged steps: MusiLingo (arXiv 2309.08730), LLark (2310.07160), LTU (2305.10790)."""

    name: Literal["linear"] = "linear"
    base: str | None = None
    """A whole audio language model whose projector this is at the start (`base:` of a recipe); random by default."""
    preset: Literal["ltu", "musilingo", "llark", "qwen_audio"] | None = None
    pool_steps: int = Field(default=1, gt=0)
    """Steps that are averaged into one position."""
    input_norm: Literal["none", "plain", "affine"] = "none"
    """LayerNorm between mean and layer: without (`plain`, LTU) or with learned scale and shift (Qwen-Audio)."""
    input_scale: float = Field(default=1.0, gt=0)
    """A constant that the means are multiplied by, before the norm (LTU divides by 50)."""

    def length_rule(self) -> LengthRule:
        return Windows(size=self.pool_steps)


class ConvSection(ProjectorSection):
    """Strided convolutions with gated linear units and a bottleneck adapter (BLSP, arXiv 2309.00916)."""

    name: Literal["conv"] = "conv"
    preset: Literal["blsp"] | None = None
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
    preset: Literal["pengi"] | None = None
    prefix_length: int = Field(default=40, gt=0)
    num_layers: int = Field(default=8, gt=0)
    num_heads: int = Field(default=8, gt=0)
    feed_forward_factor: int = Field(default=2, gt=0)

    def length_rule(self) -> LengthRule:
        return Constant(outputs=self.prefix_length)


class ConformerSection(ProjectorSection):
    """Conformer layers (arXiv 2005.08100) between encoder and decoder, a position for each step: SALM (2310.09424)."""

    name: Literal["conformer"] = "conformer"
    preset: Literal["salm"] | None = None
    num_layers: int = Field(default=2, gt=0)
    hidden_size: int = Field(default=1024, gt=0)
    num_heads: int = Field(default=8, gt=0)
    kernel_size: int = Field(default=9, gt=0)
    """Of the depthwise convolution; odd."""
    feed_forward_factor: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stack_steps: int = Field(default=1, gt=0)
    """Steps that are put side by side before the layers, where the encoder is faster than the decoder needs."""

    @model_validator(mode="after")
    def _is_centred(self) -> ConformerSection:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        return self

    def length_rule(self) -> LengthRule:
        return Windows(size=self.stack_steps)


class TransformerSection(ProjectorSection):
    """Transformer layers over the steps and a linear layer, a position for each step: Audio Flamingo's audio
    transformer (arXiv 2402.01831), whose steps are one embedding for each sliding window."""

    name: Literal["transformer"] = "transformer"
    preset: Literal["audio_flamingo"] | None = None
    num_layers: int = Field(default=3, gt=0)
    hidden_size: int | None = Field(default=None, gt=0)
    """Width of the layers, behind a linear layer; without it the encoder's, with none."""
    num_heads: int = Field(default=8, gt=0)
    intermediate_size: int = Field(default=2048, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def length_rule(self) -> LengthRule:
        return Chain()


class AggregatorSection(ProjectorSection):
    """GAMA's two branches over several layers of one encoder (arXiv 2406.11768), one behind the other.

    First the queries of a global Q-Former over the last layer; then the last layer's own steps, which read the tapped
    layers one after another. The encoder gives `num_taps` layers and its last one.
    """

    name: Literal["aggregator"] = "aggregator"
    preset: Literal["gama"] | None = None
    num_taps: int = Field(default=2, gt=0)
    """Layers that the steps read, the deepest first: one decoder layer for each."""
    reads_taps: bool = True
    """`false`: as the released code computes it, which drops what the steps read. The encoder then gives its last layer
    alone, and the steps pass `num_taps` layers that read themselves only."""
    input_scale: float = Field(default=1.0, gt=0)
    """A constant that all layers of the encoder are multiplied by (GAMA divides by 50)."""
    pool_steps: int = Field(default=1, gt=0)
    """Steps of the last layer that are averaged into one."""
    queries: int = Field(default=32, gt=0)
    num_layers: int = Field(default=12, gt=0)
    """Layers of the Q-Former."""
    hidden_size: int = Field(default=768, gt=0)
    num_heads: int = Field(default=12, gt=0)
    intermediate_size: int = Field(default=3072, gt=0)
    cross_attention_every: int = Field(default=2, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    soft_prompt: int = Field(default=0, ge=0)
    """Learned vectors behind the positions of a clip (the paper's soft prompt; the released code has none)."""

    @property
    def num_layer_inputs(self) -> int:
        return 1 + self.num_taps if self.reads_taps else 1

    def length_rule(self) -> LengthRule:
        rules: tuple[LengthRule, ...] = (Constant(outputs=self.queries), Windows(size=self.pool_steps))
        if self.soft_prompt:
            rules += (Constant(outputs=self.soft_prompt),)
        return Parallel(rules=rules, join="sum")


class TltrSection(ProjectorSection):
    """Time and layer-wise transformer over every layer of one encoder (Whisper-AT, arXiv 2307.03183; LTU-AS,
    2309.14405). The encoder gives `layers_read` layers, each as a state of its own."""

    name: Literal["tltr"] = "tltr"
    preset: Literal["ltu_as"] | None = None
    layers_read: int = Field(default=32, gt=1)
    pool_steps: int = Field(default=20, gt=0)
    """Steps that are averaged into one position."""
    num_heads: int = Field(default=8, gt=0)
    feed_forward_factor: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @property
    def num_layer_inputs(self) -> int:
        return self.layers_read

    def length_rule(self) -> LengthRule:
        return Windows(size=self.pool_steps)


class UnitsProjectorSection(ProjectorSection):
    """An embedding for each unit of the encoder: new entries of the vocabulary (SpeechGPT, arXiv 2305.11000)."""

    name: Literal["units"] = "units"
    markers: bool = True
    """An entry before and one after the units of a clip (SpeechGPT's <sosp> and <eosp>)."""

    def length_rule(self) -> LengthRule:
        return Parallel(rules=(Chain(), Constant(outputs=2)), join="sum") if self.markers else Chain()


BranchOptions = Annotated[
    QFormerSection
    | MlpSection
    | LinearSection
    | ConvSection
    | PerceiverSection
    | MapperSection
    | ConformerSection
    | TransformerSection
    | AggregatorSection
    | TltrSection,
    Field(discriminator="name"),
]


class BranchesSection(ProjectorSection):
    """Several projectors side by side, their positions joined.

    Source: the two-stream bridges of LTU-AS (arXiv 2309.14405) and GAMA (2406.11768).
    """

    name: Literal["branches"] = "branches"
    branches: tuple[BranchOptions, ...] = Field(min_length=2)
    reads: Literal["own", "all"] = "own"
    """`own`: branch i reads encoder i; `all`: each branch reads all encoders, joined on width."""
    join: Literal["time", "width"] = "time"
    """`time`: the positions of one branch behind those of another. `width`: side by side, then one linear layer."""
    hidden_size: int = Field(default=1024, gt=0)
    """Width of each branch's positions before they are joined on width."""

    @model_validator(mode="after")
    def _branches_are_plain(self) -> BranchesSection:
        for number, branch in enumerate(self.branches):
            if branch.num_layer_inputs > 1:
                raise ValueError(f"branches[{number}]: '{branch.name}' reads several layers and cannot be a branch")
        return self

    @property
    def needs_question(self) -> bool:
        return any(branch.needs_question for branch in self.branches)

    def length_rule(self) -> LengthRule:
        rules = tuple(branch.length_rule() for branch in self.branches)
        return Parallel(rules=rules, join="sum" if self.join == "time" else "max")


ProjectorOptions = Annotated[
    QFormerSection
    | MlpSection
    | LinearSection
    | ConvSection
    | PerceiverSection
    | MapperSection
    | ConformerSection
    | TransformerSection
    | AggregatorSection
    | TltrSection
    | UnitsProjectorSection
    | BranchesSection,
    Field(discriminator="name"),
]
