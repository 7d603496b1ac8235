"""Several encoders over the same clips: aligned in time, step beside step, or one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from lalm.encoders import load_encoder
from lalm.errors import ModelError
from lalm.model.audio_tower import AudioTower
from lalm.processing.clips import features_of
from lalm.recipe.encoders import EncoderOptions, JoinSection

WHISPER = {"name": "whisper", "random_sizes": {"max_source_positions": 75}, "padding": "real"}
AST = {"name": "ast", "random_sizes": {"max_length": 100}, "padding": "real"}
MIMI = {"name": "mimi", "chunk_seconds": 2.0}
LENGTHS = (16000 * 4 + 1234, 9000, 2000)
"""At 16 kHz: several chunks of each encoder; one; too short for AST."""


def section(options: dict):
    return TypeAdapter(EncoderOptions).validate_python({"base": "random", **options})


def tower_of(*encoders: dict, **join) -> AudioTower:
    torch.manual_seed(0)
    names = [options["name"] for options in encoders]
    return AudioTower([load_encoder(section(options)) for options in encoders], names, JoinSection(**join)).eval()


def inputs_of(tower: AudioTower, lengths=LENGTHS) -> dict:
    rate = tower.sample_rate_hz
    clips = [np.random.default_rng(n).normal(0, 0.1, n * rate // 16000).astype(np.float32) for n in lengths]
    return features_of([encoder.front_end for encoder in tower.encoders], clips, rate)


def alone(tower: AudioTower, number: int, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    counts = inputs["chunk_counts"]
    counts = counts if isinstance(counts, torch.Tensor) else counts[number]
    single = AudioTower([tower.encoders[number]])
    return single([inputs["input_features"][number]], [inputs["feature_lengths"][number]], counts)


@pytest.mark.parametrize(
    "join", [{}, {"rate": "ast"}, {"rate": "mimi"}, {"rate": "each"}, {"axis": "time"}], ids=lambda join: str(join)
)
@torch.no_grad()
def test_joined_steps_follow_the_length_rule(join):
    tower = tower_of(WHISPER, AST, MIMI, **join)
    lengths = (1, 700, 2900, 16000, 24001, 30000, 48000, 70001)
    states, num_steps = tower(**inputs_of(tower, lengths))
    rate = tower.sample_rate_hz
    assert num_steps.tolist() == [tower.length_rule.count(n * rate // 16000) for n in lengths]
    assert states.shape == (len(lengths), int(num_steps.max()), tower.width)
    assert all(not clip[steps:].any() for clip, steps in zip(states, num_steps, strict=True))


@pytest.mark.parametrize("join", [{"rate": "ast"}, {"axis": "time"}], ids=lambda join: str(join))
@torch.no_grad()
def test_positions_agree_with_the_states_after_real_resampling(join):
    tower = tower_of(AST, MIMI, **join)
    clips = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (24001, 36037, 48002, 71999)]
    inputs = features_of([encoder.front_end for encoder in tower.encoders], clips, tower.sample_rate_hz)
    assert tower.sample_rate_hz == 24000
    assert tower(**inputs)[1].tolist() == [tower.length_rule.count(len(clip)) for clip in clips]


@torch.no_grad()
def test_the_finest_sets_the_rate_and_others_give_their_nearest_state():
    tower = tower_of(AST, WHISPER)
    inputs = inputs_of(tower)
    states, num_steps = tower(**inputs)
    ast, ast_steps = alone(tower, 0, inputs)
    whisper, whisper_steps = alone(tower, 1, inputs)
    assert num_steps.tolist() == whisper_steps.tolist()
    assert torch.equal(states[..., 32:], whisper)
    assert ast_steps.tolist()[2] == 0
    assert not states[2, :, :32].any()
    for clip in range(2):
        # AST's chunks are 1.0 s with 9 columns of 0.1 s (the last has what is left); Whisper's 1.5 s, without loss.
        per_chunk, remaining = [], int(ast_steps[clip])
        while remaining:
            per_chunk.append(min(9, remaining))
            remaining -= per_chunk[-1]
        middles = np.array([c * 1.0 + (j + 0.5) * 0.1 for c, count in enumerate(per_chunk) for j in range(count)])
        for step in range(int(num_steps[clip])):
            distance = np.abs(middles - (step + 0.5) * 0.02)
            nearest = np.flatnonzero(distance < distance.min() + 1e-9)
            assert any(torch.equal(states[clip, step, :32], ast[clip, index]) for index in nearest), (clip, step)


@torch.no_grad()
def test_a_named_encoder_sets_the_rate():
    tower = tower_of(AST, WHISPER, rate="ast")
    inputs = inputs_of(tower)
    states, num_steps = tower(**inputs)
    ast, ast_steps = alone(tower, 0, inputs)
    assert num_steps.tolist() == ast_steps.tolist()
    assert torch.equal(states[..., :32], ast)
    whisper, _ = alone(tower, 1, inputs)
    assert torch.equal(states[1, 0, 32:], whisper[1, 2]), "0.05 s lies in the third step of 0.02 s"


@torch.no_grad()
def test_each_puts_step_beside_step():
    tower = tower_of(AST, WHISPER, rate="each")
    inputs = inputs_of(tower)
    states, num_steps = tower(**inputs)
    ast, ast_steps = alone(tower, 0, inputs)
    whisper, whisper_steps = alone(tower, 1, inputs)
    assert num_steps.tolist() == torch.maximum(ast_steps, whisper_steps).tolist()
    assert torch.equal(states[:, : ast.shape[1], :32], ast)
    assert not states[:, ast.shape[1] :, :32].any()
    assert torch.equal(states[..., 32:], whisper)


@torch.no_grad()
def test_in_time_each_encoder_has_slots_of_its_own():
    tower = tower_of(AST, WHISPER, axis="time")
    inputs = inputs_of(tower)
    states, num_steps = tower(**inputs)
    ast, ast_steps = alone(tower, 0, inputs)
    whisper, whisper_steps = alone(tower, 1, inputs)
    assert num_steps.tolist() == (ast_steps + whisper_steps).tolist()
    for clip, (first, second) in enumerate(zip(ast_steps.tolist(), whisper_steps.tolist(), strict=True)):
        assert torch.equal(states[clip, :first, :32], ast[clip, :first])
        assert not states[clip, :first, 32:].any()
        assert torch.equal(states[clip, first : first + second, 32:], whisper[clip, :second])
        assert not states[clip, first : first + second, :32].any()


@pytest.mark.parametrize("join", [{}, {"rate": "ast"}, {"rate": "each"}, {"axis": "time"}], ids=lambda join: str(join))
@torch.no_grad()
def test_a_batch_equals_its_clips_one_by_one(join):
    tower = tower_of(AST, WHISPER, **join)
    states, num_steps = tower(**inputs_of(tower))
    for clip, length in enumerate(LENGTHS):
        own, own_steps = tower(**inputs_of(tower, (length,)))
        steps = int(own_steps[0])
        assert int(num_steps[clip]) == steps
        torch.testing.assert_close(states[clip, :steps], own[0], atol=2e-6, rtol=0)


def test_a_rate_that_is_no_encoder_is_refused():
    with pytest.raises(ModelError, match=r"join\.rate: 'beats' names 0 of the encoders \(ast, whisper\)"):
        tower_of(AST, WHISPER, rate="beats")
    with pytest.raises(ModelError, match="'ast' names 2 of the encoders"):
        tower_of(AST, AST, rate="ast")


def test_a_frozen_encoder_stays_in_eval_mode_behind_a_learned_sum_of_layers():
    tower = tower_of({**AST, "layers": "weighted"})
    encoder = tower.encoders[0]
    encoder.mix.weights.requires_grad_(True)
    inputs = inputs_of(tower, LENGTHS[:2])
    before, _ = tower.train()(**inputs)
    assert not encoder.training
    before.square().sum().backward()
    assert encoder.mix.weights.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.model.parameters())
    encoder.model.requires_grad_(True)
    assert tower.train().encoders[0].training


def test_the_learned_sum_stays_float32_in_a_half_precision_encoder():
    encoder = load_encoder(section({**AST, "layers": "weighted"}), torch.bfloat16)
    assert encoder.mix.weights.dtype is torch.float32
    assert encoder.model.layernorm.weight.dtype is torch.bfloat16
    states, _ = AudioTower([encoder])(**inputs_of(AudioTower([encoder]), LENGTHS[:1]))
    assert states.dtype is torch.bfloat16


def test_chunk_counts_that_do_not_add_up_are_refused():
    tower = tower_of(AST)
    inputs = inputs_of(tower)
    with pytest.raises(ValueError, match="chunk_counts add up to"):
        tower(inputs["input_features"], inputs["feature_lengths"], torch.tensor([1]))
