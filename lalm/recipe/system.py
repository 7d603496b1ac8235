"""What a recipe says of the published system that it rebuilds: paper, printed sizes, known differences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from lalm.recipe.base import Section

Counted = Literal["all", "trained", "encoder", "projector", "lora", "language_model", "positions"]


class PublishedSize(Section):
    """One figure that a paper prints, beside which `lalm check` puts ours."""

    of: Counted
    """Parameters: of everything, of what trains in `stage`, of one part; or the decoder positions of a clip."""
    value: PositiveFloat
    stage: str | None = None
    """With `of: trained`: the stage; the last one by default."""
    seconds: PositiveFloat | None = None
    """With `of: positions`: the length of the clip."""
    at_most: bool = False
    """The paper prints an upper bound."""
    source: str
    """Where the figure stands."""
    differs: str | None = None
    """Why ours is another, where it is."""

    @model_validator(mode="after")
    def _belongs_together(self) -> PublishedSize:
        if (self.of == "positions") != (self.seconds is not None):
            raise ValueError("seconds: give it with 'of: positions', and only there")
        if self.stage is not None and self.of != "trained":
            raise ValueError("stage: only 'of: trained' counts what one stage trains")
        return self


class SystemSection(Section):
    """The published system that a recipe rebuilds."""

    title: str
    year: Annotated[int, Field(ge=2020, le=2100)]
    paper: str
    """`arXiv 2310.13289`, or where else it is described."""
    sizes: tuple[PublishedSize, ...] = ()
    differences: tuple[str, ...] = ()
    """What is known to differ from the paper, the weightiest first."""
    official_weights: Literal["no", "salmonn", "ltu", "gama"] = "no"
    """The layout in which `lalm convert` reads the released weights, where it can."""
