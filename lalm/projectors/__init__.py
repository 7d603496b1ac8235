"""Projectors by name: one file each, one line in the table."""

from __future__ import annotations

from importlib import import_module

from lalm.projectors.base import Projector
from lalm.recipe.projectors import ProjectorSection

PROJECTORS = {
    "qformer": "lalm.projectors.qformer:QFormerProjector",
    "mlp": "lalm.projectors.mlp:MlpProjector",
    "linear": "lalm.projectors.linear:LinearProjector",
    "conv": "lalm.projectors.conv:ConvProjector",
    "perceiver": "lalm.projectors.perceiver:PerceiverProjector",
    "mapper": "lalm.projectors.mapper:MapperProjector",
}


def build_projector(section: ProjectorSection, encoder_width: int, decoder_width: int) -> Projector:
    """A projector with random weights. Its constructor takes the section's fields as keywords."""
    options = section.model_dump()
    module, _, name = PROJECTORS[options.pop("name")].partition(":")
    return getattr(import_module(module), name)(encoder_width=encoder_width, decoder_width=decoder_width, **options)
