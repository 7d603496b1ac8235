"""What a recipe may say of an audio encoder: one options class an encoder, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lalm.recipe.base import Section


class EncoderSection(Section):
    """What every encoder has."""

    base: str
    """A folder, a file, a hub name, `package:NAME` (weights carried by a package), or `random` (tests)."""
    layers: Literal["last", "weighted"] | tuple[int, ...] = "last"
    """The last layer, a learned weighted sum of all (SpeechVerse), or a mean of some, counted from 0 = the output of
    the first block."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """How a frozen encoder computes; `auto`: bfloat16 where the machine multiplies in it, else float32."""
    random_sizes: dict[str, int] = Field(default_factory=dict)
    """With `base: random`: sizes for the encoder's own transformers configuration."""


class WhisperSection(EncoderSection):
    """Whisper's encoder (arXiv 2212.04356) from a transformers folder, an official `.pt` or a CTranslate2 folder."""

    name: Literal["whisper"] = "whisper"
    padding: Literal["full", "real", "margin"] = "full"
    """What the encoder is shown: 30 s as in its training, the clip alone, or the clip and some silence. Positions that
    are only padding never reach the projector, whichever it is."""
    margin_seconds: float = Field(default=1.0, ge=0, le=30)
    """The silence that `padding: margin` adds."""


class BeatsSection(EncoderSection):
    """BEATs (arXiv 2212.09058) from an official `.pt`, or a folder that `lalm.encoders.beats.save_beats` wrote."""

    name: Literal["beats"] = "beats"
    padding: Literal["real", "full"] = "real"
    """What the encoder is shown: the clip alone, or a whole chunk of which the rest is masked, as published batches."""
    chunk_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are cut into pieces of this length."""


EncoderOptions = Annotated[WhisperSection | BeatsSection, Field(discriminator="name")]
