"""The estimate of memory against the tensors that trained steps hold (an allocator's own room is in neither)."""

from __future__ import annotations

import pytest
import torch
from curricula import tiny_curriculum, write_records

from lalm.data.dataset import build_stage_data
from lalm.data.examples import open_clips
from lalm.data.state_cache import caches_states
from lalm.model.build import build_model
from lalm.model.memory import LiveBytes
from lalm.model.memory_plan import plan_memory
from lalm.model.plan import build_without_weights
from lalm.recipe.schema import Recipe
from lalm.training.batch_shapes import stage_shapes
from lalm.training.batches import NamedBatches, to_device
from lalm.training.stages import enter_stage
from lalm.training.trainer import NOT_FOR_THE_MODEL

TOLERANCE = 0.15
SMALL = [
    "language_model.random_sizes={hidden_size: 128, intermediate_size: 512, num_hidden_layers: 6, "
    "num_attention_heads: 4, num_key_value_heads: 2}",
    "language_model.lora={rank: 4, dropout: 0.1}",
    "encoders.0.dtype=float32",
    "data.cache_states=false",
    "stages.instruct.micro_batch_tokens=700",
    "stages.instruct.batch_records=16",
]
CASES = {
    "eager": ["language_model.attention=eager"],
    "sdpa": ["language_model.attention=sdpa"],
    "bfloat16": ["language_model.attention=sdpa", "language_model.dtype=bfloat16"],
    "checkpointing": ["language_model.attention=eager", "stages.instruct.gradient_checkpointing=true"],
    "rows": ["data.packing=none"],
    "adapter alone": ["stages.instruct.learning_rates={lora: 0.01}"],
    "whole language model": ["stages.instruct.learning_rates={projector: 0.01, language_model: 0.01}"],
    "encoder": [
        "stages.instruct.learning_rates={projector: 0.01, encoder: 0.01}",
        "encoders.0.random_sizes={d_model: 64, encoder_layers: 3, encoder_attention_heads: 4, encoder_ffn_dim: 256}",
    ],
    "cross-attention": ["language_model.cross_attention={every: 2, num_heads: 4, head_size: 32}"],
}


@pytest.fixture
def make(tmp_path):
    """Overrides -> the recipe, the model in its second stage, the inputs of its largest micro-batch."""
    write_records(tmp_path / "data")

    def make(overrides: list[str]) -> tuple[Recipe, torch.nn.Module, dict]:
        recipe = tiny_curriculum(tmp_path, "run", "salmonn", *SMALL, *overrides)
        model, processor = build_model(recipe)
        clips = open_clips(recipe, processor.sampling_rate)
        data = build_stage_data(recipe, 1, processor, clips)
        enter_stage(model, recipe.stages[1])
        if recipe.stages[1].gradient_checkpointing:
            model.activation_checkpointing_enable()
        largest = max(
            range(len(data.plan)), key=lambda item: data.dataset.micro_batch(item).inputs["input_ids"].numel()
        )
        item = NamedBatches(data, clips)[largest]
        inputs = {name: value for name, value in item.items() if name not in NOT_FOR_THE_MODEL}
        return recipe, model.train(), to_device(inputs, model.device)

    return make


def train(model: torch.nn.Module, inputs: dict, steps: int) -> None:
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-4)
    for _ in range(steps):
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def estimated(recipe: Recipe):
    shapes = stage_shapes(recipe, build_without_weights(recipe).audio_tower)
    return plan_memory(recipe, live_encoder=not caches_states(recipe), shapes=shapes)[1]


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_15_percent_of_the_tensors_that_a_step_holds(make, case):
    recipe, model, inputs = make(CASES[case])
    expected = estimated(recipe)
    assert expected.weights == sum(value.numel() * value.element_size() for value in model.parameters())
    with LiveBytes() as live:
        live.ignore([*model.parameters(), *model.buffers()])
        train(model, inputs, steps=2)
    assert expected.weights + live.peak == pytest.approx(expected.total, rel=TOLERANCE)
    assert live.peak == pytest.approx(expected.total - expected.weights, rel=TOLERANCE)
