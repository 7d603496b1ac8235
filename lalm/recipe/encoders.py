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


EncoderOptions = Annotated[WhisperSection, Field(discriminator="name")]
