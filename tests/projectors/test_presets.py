"""Published sizes: every preset builds, a field beside it wins, and parameter counts are those of the papers."""

from __future__ import annotations

import typing

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from lalm.projectors import PROJECTORS, build_projector
from lalm.recipe.projector_presets import PRESETS
from lalm.recipe.projectors import BranchOptions, ProjectorOptions

SECTIONS = {
    section.model_fields["name"].default: section for section in typing.get_args(typing.get_args(BranchOptions)[0])
}
LORA_13B, LORA_7B = 40 * 2 * 8 * (5120 + 5120), 32 * 2 * 8 * (4096 + 4096)
"""LoRA of rank 8 on query and value of LLaMA 13B and 7B."""


def section_of(name, preset, **options):
    return TypeAdapter(ProjectorOptions).validate_python({"name": name, "preset": preset, **options})


def count(section, encoder_width, decoder_width):
    with torch.device("meta"):
        layers = section.num_layer_inputs
        projector = build_projector(section, encoder_width, decoder_width, num_layers_given=layers)
    return sum(parameter.numel() for parameter in projector.parameters())


def test_every_preset_is_named_in_its_section():
    for name, presets in PRESETS.items():
        annotation = SECTIONS[name].model_fields["preset"].annotation
        literal, _ = typing.get_args(annotation)
        assert sorted(typing.get_args(literal)) == sorted(presets)
    assert set(PRESETS) <= set(PROJECTORS)


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name, presets in PRESETS.items() for preset in presets]
)
def test_every_preset_sets_its_fields(name, preset):
    section = section_of(name, preset)
    assert {field: getattr(section, field) for field in PRESETS[name][preset]} == PRESETS[name][preset]
    assert section_of(**section.model_dump()) == section
    assert count(section, 768, 4096) > 0


def test_a_field_beside_a_preset_wins():
    section = section_of("qformer", "blip2", queries=7)
    assert (section.queries, section.num_layers, section.window_steps) == (7, 12, None)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValidationError, match="'salmonn', 'blip2'"):
        section_of("qformer", "salmon")


@pytest.mark.parametrize(
    ("name", "preset", "encoder_width", "decoder_width", "others", "published"),
    [
        # SALMONN 13B: about 33 M trained with its LoRA, 0.24 % of the whole.
        ("qformer", "salmonn", 1280 + 768, 5120, LORA_13B, 33e6),
        # Linear 768 -> 4096 and nothing else: the norm has no parameters.
        ("linear", "ltu", 768, 4096, 0, 768 * 4096 + 4096),
        ("linear", "musilingo", 1024, 4096, 0, 1024 * 4096 + 4096),
        ("linear", "llark", 4800, 4096, 0, 4800 * 4096 + 4096),
        # 768 -> 768 -> 768 -> 4096 with gates, bottleneck of 512, norm.
        ("conv", "blsp", 768, 4096, 0, 2 * 768 * 1536 * 5 + 768 * 8192 * 5 + 2 * 4096 * 512),
        # LTU-AS: 48.8 M trained with its LoRA.
        ("tltr", "ltu_as", 1280, 4096, LORA_7B, 48.8e6),
        ("mlp", "slam_llm", 1280, 4096, 0, 5 * 1280 * 2048 + 2048 + 2048 * 4096 + 4096),
    ],
)
def test_sizes_are_the_published_ones(name, preset, encoder_width, decoder_width, others, published):
    ours = count(section_of(name, preset), encoder_width, decoder_width) + others
    assert ours == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("name", "preset", "steps", "positions"),
    [
        ("qformer", "salmonn", 1500, 89),  # 88 with partial_window: drop, as in the released code
        ("linear", "ltu", 64, 32),
        ("aggregator", "gama", 64, 96),
        ("linear", "musilingo", 75 * 30, 7),
        ("conv", "blsp", 1500, 188),
        ("mlp", "slam_llm", 1500, 300),
        ("mapper", "pengi", 1, 40),
        ("conformer", "salm", 125, 125),
        ("tltr", "ltu_as", 500, 25),
        ("linear", "qwen_audio", 500, 250),
    ],
)
def test_rates_are_the_published_ones(name, preset, steps, positions):
    assert section_of(name, preset).length_rule().count(steps) == positions


def test_the_windows_of_salmonn_that_are_not_full_can_be_dropped():
    assert section_of("qformer", "salmonn", partial_window="drop").length_rule().count(1500) == 88
