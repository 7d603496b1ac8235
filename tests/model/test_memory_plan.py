"""Bytes of a stage follow from its recipe. What a step really holds: tests/training/test_memory_estimate.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lalm.model.memory import LiveBytes
from lalm.model.memory_plan import plan_memory
from lalm.model.plan import plan_model
from lalm.recipe.load import load_recipe
from lalm.resources import list_shipped

PACKAGED = {"quickstart", "quickstart_full", "own_data"}
"""Their bases are packages, which are not here."""


def stages(*overrides: str):
    return plan_memory(load_recipe("tiny", ["encoders.0.dtype=float32", *overrides]), live_encoder=False)


def test_live_bytes_follow_tensors():
    held = torch.zeros(10)
    with LiveBytes() as live:
        live.ignore([held])
        view = held[2:]
        made = torch.zeros(100)
        copy = made[:50].clone()
        assert live.now == 600
        del made
        assert live.now == 200
        more = copy + 1
        assert (live.now, live.peak) == (400, 600)
        del more, view
    assert live.now == 200


def test_gradients_and_moments_are_of_what_trains():
    parameters = plan_model(load_recipe("tiny")).parameters
    align, instruct = stages()
    assert align.weights == 4 * sum(parameters.values())
    assert align.trained_weights == align.gradients == 4 * parameters["projector"]
    assert align.optimizer == 8 * parameters["projector"]
    assert instruct.gradients == 4 * (parameters["projector"] + parameters["lora"])
    (patterned, _) = stages("stages.align.only={projector: ['*.to_decoder.*']}")
    assert patterned.gradients == 4 * (16 * 32 + 32)


def test_precision_quantisation_and_checkpointing_save():
    language_model = plan_model(load_recipe("tiny")).parameters["language_model"]
    plain = stages("language_model.attention=sdpa")[0]
    half = stages("language_model.attention=sdpa", "language_model.dtype=bfloat16")[0]
    packed = stages(
        "language_model.attention=sdpa", "language_model.dtype=bfloat16", "language_model.quantisation=nf4"
    )[0]
    saving = stages("language_model.attention=sdpa", "stages.align.gradient_checkpointing=true")[0]
    assert half.weights == plain.weights - 2 * language_model
    assert half.activations < plain.activations
    assert packed.weights < half.weights
    assert saving.activations < plain.activations
    assert saving.flops > plain.flops


def test_a_stage_that_trains_the_language_model_holds_it_in_float32():
    align, instruct = stages("language_model.dtype=bfloat16", "stages.instruct.learning_rates.language_model=1e-5")
    assert instruct.weights > align.weights


@pytest.mark.parametrize("tokens", [512, 2048])
def test_larger_micro_batches_hold_more(tokens):
    small, large = (stages(f"stages.align.micro_batch_tokens={count}", "stages.align.batch_records=64")[0]
                    for count in (tokens, 4 * tokens))  # fmt: skip
    assert large.shape.clips > 3 * small.shape.clips
    assert large.activations > 2 * small.activations
    assert large.flops > 3 * small.flops
    assert large.weights == small.weights


@pytest.mark.parametrize("live_encoder", [False, True])
@pytest.mark.parametrize("name", sorted({Path(file).stem for file in list_shipped("recipes")} - PACKAGED))
def test_every_shipped_system_is_counted(name, live_encoder):
    """As its tiny twin: the same encoders, projector and decoder family."""
    recipe = load_recipe(name, tiny=True)
    for stage in plan_memory(recipe, live_encoder=live_encoder, only=recipe.stages[0].name):
        assert stage.activations > 0
        assert stage.flops > 0
