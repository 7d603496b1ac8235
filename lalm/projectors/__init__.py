"""Projectors by name: one file each, one line in the table."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from lalm.projectors.base import Projector
from lalm.recipe.projectors import BranchesSection, ProjectorSection, QFormerSection, UnitsProjectorSection

PROJECTORS = {
    "qformer": "lalm.projectors.qformer:QFormerProjector",
    "mlp": "lalm.projectors.mlp:MlpProjector",
    "linear": "lalm.projectors.linear:LinearProjector",
    "conv": "lalm.projectors.conv:ConvProjector",
    "perceiver": "lalm.projectors.perceiver:PerceiverProjector",
    "mapper": "lalm.projectors.mapper:MapperProjector",
    "conformer": "lalm.projectors.conformer:ConformerProjector",
    "transformer": "lalm.projectors.transformer:TransformerProjector",
    "aggregator": "lalm.projectors.aggregator:AggregatorProjector",
    "tltr": "lalm.projectors.tltr:TltrProjector",
    "units": "lalm.projectors.units:UnitsProjector",
    "branches": "lalm.projectors.branches:BranchesProjector",
}


def build_projector(
    section: ProjectorSection,
    encoder_width: int,
    decoder_width: int,
    *,
    stream_widths: Sequence[int] | None = None,
    num_layers_given: int = 1,
    num_units: int = 0,
) -> Projector:
    """A projector with random weights. Its constructor takes the section's fields as keywords.

    Args:
        encoder_width: `E`, of all encoders together; with several layers, of one layer.
        stream_widths: width of each encoder; one encoder by default.
        num_layers_given: layers of the encoder that arrive as states of their own.
        num_units: how many units the encoder has in place of states; 0 for states.

    Raises:
        ValueError: if the projector reads another number of layers or streams than there are, units in place of states
            or the other way round, or its sizes do not fit.
    """
    if section.num_layer_inputs != num_layers_given:
        raise ValueError(
            f"the projector reads {section.num_layer_inputs} layers of the encoder, each as a state of its own, but "
            f"{num_layers_given} arrive"
        )
    if (section.name == "units") != (num_units > 0):  # type: ignore[attr-defined]
        given = f"{num_units} units" if num_units else "states"
        raise ValueError(f"the projector '{section.name}' cannot read the encoder's {given}")  # type: ignore[attr-defined]
    options = section.model_dump(exclude={"preset", "base"})
    module, _, name = PROJECTORS[options.pop("name")].partition(":")
    projector = getattr(import_module(module), name)
    if isinstance(section, BranchesSection):
        return projector(
            branches=_build_branches(section, decoder_width, stream_widths or [encoder_width]),
            stream_widths=stream_widths or [encoder_width],
            decoder_width=decoder_width,
            reads=section.reads,
            join=section.join,
        )
    if isinstance(section, UnitsProjectorSection):
        return projector(num_units=num_units, decoder_width=decoder_width, **options)
    if isinstance(section, QFormerSection):
        options["stream_widths"] = stream_widths or [encoder_width]
    return projector(encoder_width=encoder_width, decoder_width=decoder_width, **options)


def _build_branches(section: BranchesSection, decoder_width: int, stream_widths: Sequence[int]) -> list[Projector]:
    count = len(section.branches)
    if section.reads == "own" and count != len(stream_widths):
        raise ValueError(
            f"projector.branches: {count} branches that read one encoder each, for {len(stream_widths)} encoders. "
            "Give one branch for each encoder, or 'reads: all'."
        )
    widths = stream_widths if section.reads == "own" else [sum(stream_widths)] * count
    out = decoder_width if section.join == "time" else section.hidden_size
    streams = None if section.reads == "own" else stream_widths
    pairs = zip(section.branches, widths, strict=True)
    return [build_projector(branch, width, out, stream_widths=streams) for branch, width in pairs]
