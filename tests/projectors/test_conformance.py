"""Every projector of the table: shapes, lengths, padded = unpadded, batch = one by one, dtype, saved = loaded."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from lalm.projectors import PROJECTORS, build_projector
from lalm.projectors.units import UnitsProjector
from lalm.recipe.projectors import ProjectorOptions

ENCODER_WIDTH, DECODER_WIDTH = 24, 16
STREAM_WIDTHS = [14, 10]
NUM_UNITS = 16
TINY_BERT = {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "dropout": 0.0}
SMALL = {
    "qformer": [
        {"window_steps": 5, "queries": 2, **TINY_BERT},
        {"window_steps": 4, **TINY_BERT, "num_heads": 4, "partial_window": "drop", "cross_attention_every": 2},
        {"window_steps": None, "queries": 3, **TINY_BERT, "num_layers": 1},
        {"window_steps": None, "queries": 3, **TINY_BERT, "reads_question": True},
        {"window_steps": 6, "queries": 1, **TINY_BERT, "reads_question": True},
        {"window_steps": 5, "queries": 2, **TINY_BERT, "input_norm": "none", "filler": "attended"},
    ],
    "mlp": [
        {"stack_steps": 3, "hidden_size": 32},
        {"stack_steps": 1, "hidden_size": 8, "num_layers": 1, "normalise": False},
        {"stack_steps": 4, "hidden_size": 8, "num_layers": 3, "activation": "gelu"},
        {"stack_steps": 3, "hidden_size": 8, "layers_read": 2},
        {"stack_steps": 3, "hidden_size": 8, "ends_with": "mean"},
        {"stack_steps": 3, "hidden_size": 8, "ends_with": "statistics"},
        {"stack_steps": 2, "hidden_size": 8, "ends_with": "statistics", "layers_read": 2, "normalise": False},
        {"stack_steps": 4, "hidden_size": 16, "activation": "gelu", "normalise": False, "bias": False},
    ],
    "linear": [{"pool_steps": 4, "input_norm": "affine"}, {"pool_steps": 2, "input_norm": "plain", "input_scale": 0.5}],
    "conv": [
        {"num_layers": 3, "adapter_size": 8},
        {"num_layers": 1, "kernel_size": 4, "stride": 3, "adapter_size": None},
    ],
    "perceiver": [{"latents": 5, "num_layers": 2, "hidden_size": 16, "num_heads": 4}],
    "mapper": [{"prefix_length": 3, "num_layers": 2, "num_heads": 4}],
    "conformer": [
        {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "kernel_size": 5},
        {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "kernel_size": 3, "stack_steps": 3},
    ],
    "transformer": [
        {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "dropout": 0.0},
        {"num_layers": 1, "num_heads": 3, "intermediate_size": 32, "dropout": 0.0},
    ],
    "aggregator": [
        {"queries": 3, **TINY_BERT, "pool_steps": 4, "soft_prompt": 2},
        {"queries": 1, **TINY_BERT, "pool_steps": 1, "num_taps": 1, "input_scale": 0.02},
        {"queries": 2, **TINY_BERT, "pool_steps": 2, "num_taps": 2, "reads_taps": False},
    ],
    "tltr": [{"layers_read": 4, "pool_steps": 3, "num_heads": 3}, {"layers_read": 2, "pool_steps": 1, "num_heads": 2}],
    "units": [{}, {"markers": False}],
    "branches": [
        {"branches": [{"name": "qformer", "window_steps": 5, **TINY_BERT}, {"name": "linear", "pool_steps": 3}]},
        {
            "branches": [{"name": "conv", "num_layers": 1}, {"name": "linear", "pool_steps": 4}],
            "join": "width",
            "hidden_size": 12,
        },
        {
            "branches": [
                {"name": "qformer", "window_steps": None, "queries": 2, **TINY_BERT, "reads_question": True},
                {"name": "linear"},
            ],
            "reads": "all",
        },
    ],
}
CASES = [(name, options) for name, cases in SMALL.items() for options in cases]


def make(name, options):
    torch.manual_seed(0)
    section = TypeAdapter(ProjectorOptions).validate_python({"name": name, **options})
    layers = section.num_layer_inputs
    projector = build_projector(
        section,
        ENCODER_WIDTH,
        DECODER_WIDTH,
        stream_widths=STREAM_WIDTHS,
        num_layers_given=layers,
        num_units=NUM_UNITS if name == "units" else 0,
    )
    assert projector.num_layer_inputs == layers
    assert projector.reads_question == section.needs_question
    return projector.eval(), section


def states_for(projector, batch, steps):
    """Random states `[B, T, E]`, or `[B, layers, T, E]` for a projector that reads several layers; or units."""
    if isinstance(projector, UnitsProjector):
        return torch.randint(0, NUM_UNITS, (batch, steps, 1)).float()
    layers = projector.num_layer_inputs
    return torch.randn(batch, *([layers] if layers > 1 else []), steps, ENCODER_WIDTH)


def questions_for(projector, lengths):
    """Random questions of these lengths with noise behind them; nothing for a projector that reads none."""
    if not projector.reads_question:
        return ()
    return torch.randn(len(lengths), max(lengths) + 2, DECODER_WIDTH), torch.tensor(lengths)


def test_every_projector_is_tested():
    assert set(SMALL) == set(PROJECTORS)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_positions_follow_the_length_rule(name, options):
    projector, section = make(name, options)
    rule = section.length_rule()
    for steps in range(1, 23):
        positions, num_positions = projector(
            states_for(projector, 1, steps), torch.tensor([steps]), *questions_for(projector, [2])
        )
        assert num_positions.tolist() == [rule.count(steps)]
        assert positions.shape[0] == 1
        assert positions.shape[1] >= rule.count(steps)
        assert positions.shape[2] == DECODER_WIDTH


@pytest.mark.parametrize("with_gradients", [True, False])  # torch has another kernel for either
@pytest.mark.parametrize(("name", "options"), CASES)
def test_noise_behind_the_clip_changes_nothing(name, options, with_gradients):
    projector, section = make(name, options)
    projector.requires_grad_(with_gradients)
    steps = torch.tensor([7, 13, 1])
    states = states_for(projector, 3, 13)
    noisy = torch.cat([states, torch.full_like(states, 50.0)[..., :6, :]], dim=-2)
    for i, length in enumerate(steps.tolist()):
        noisy[i, ..., length:, :] = torch.randn_like(noisy[i, ..., length:, :]) * 100
    questions = questions_for(projector, [4, 0, 2])
    batched, counts = projector(noisy, steps, *questions)
    for i, length in enumerate(steps.tolist()):
        own = (questions[0][i : i + 1, : questions[1][i]], questions[1][i : i + 1]) if questions else ()
        alone, count = projector(states[i : i + 1, ..., :length, :], steps[i : i + 1], *own)
        assert count.item() == counts[i].item() == section.length_rule().count(length)
        torch.testing.assert_close(batched[i, : count.item()], alone[0, : count.item()], atol=1e-5, rtol=1e-5)
        assert not batched[i, count.item() :].any()


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_gradients_flow(name, options, dtype):
    projector, _ = make(name, options)
    projector = projector.to(dtype).train()
    states = states_for(projector, 2, 9).to(dtype).requires_grad_()
    questions = [value.to(dtype) if value.is_floating_point() else value for value in questions_for(projector, [3, 1])]
    positions, _ = projector(states, torch.tensor([9, 4]), *questions)
    assert positions.dtype == dtype
    positions.float().square().sum().backward()
    if isinstance(projector, UnitsProjector):
        assert states.grad is None, "a number of an entry has no gradient"
    else:
        assert states.grad[0].abs().sum() > 0
        assert not states.grad[1, ..., 4:, :].any()
    assert all(parameter.grad is not None for parameter in projector.parameters())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_saved_is_loaded(name, options):
    projector, _ = make(name, options)
    torch.manual_seed(1)
    other, _ = make(name, options)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert set(projector.state_dict()) == {parameter for parameter, _ in projector.named_parameters()}
    other.load_state_dict(projector.state_dict(), strict=True)
    states, steps = states_for(projector, 2, 9), torch.tensor([9, 4])
    questions = questions_for(projector, [2, 3])
    torch.testing.assert_close(other(states, steps, *questions)[0], projector(states, steps, *questions)[0])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_start_matches_the_scale_of_the_embeddings(name, options):
    projector, _ = make(name, options)
    projector.match_scale(0.1)
    positions, count = projector(states_for(projector, 1, 40), torch.tensor([40]), *questions_for(projector, [5]))
    assert 0.02 < positions[0, : count.item()].std().item() < 0.3


def test_units_and_states_are_not_mistaken_for_one_another():
    units = TypeAdapter(ProjectorOptions).validate_python({"name": "units"})
    linear = TypeAdapter(ProjectorOptions).validate_python({"name": "linear"})
    with pytest.raises(ValueError, match="projector 'units' cannot read the encoder's states"):
        build_projector(units, ENCODER_WIDTH, DECODER_WIDTH)
    with pytest.raises(ValueError, match="projector 'linear' cannot read the encoder's 7 units"):
        build_projector(linear, 1, DECODER_WIDTH, num_units=7)


def test_units_stand_between_their_markers():
    projector, _ = make("units", {})
    positions, counts = projector(torch.tensor([[[3], [5], [9]], [[7], [0], [0]]]), torch.tensor([3, 1]))
    table = projector.embedding.weight
    assert counts.tolist() == [5, 3]
    assert torch.equal(positions[0], table[[NUM_UNITS, 3, 5, 9, NUM_UNITS + 1]])
    assert torch.equal(positions[1, :3], table[[NUM_UNITS, 7, NUM_UNITS + 1]])


def test_an_impossible_head_count_is_refused():
    with pytest.raises(ValueError, match="not a multiple of the number of attention heads"):
        make("qformer", {"hidden_size": 10, "num_heads": 3})
    with pytest.raises(ValueError, match="hidden_size 10 is not a multiple of num_heads 3"):
        make("conformer", {"hidden_size": 10, "num_heads": 3})
    with pytest.raises(ValueError, match="width 24 is not a multiple of num_heads 7"):
        make("transformer", {"num_heads": 7})
    with pytest.raises(ValueError, match="encoder of width 24 cannot be read by num_heads 5"):
        make("aggregator", {"hidden_size": 10, "num_heads": 5})


def test_an_mlp_can_end_with_the_mean_of_a_clips_positions():
    projector, _ = make("mlp", {"stack_steps": 3, "hidden_size": 8, "ends_with": "mean"})
    positions, num_positions = projector(states_for(projector, 2, 10), torch.tensor([10, 2]))
    assert num_positions.tolist() == [5, 2]
    assert torch.allclose(positions[0, 4], positions[0, :4].mean(dim=0), atol=1e-6)
    assert torch.equal(positions[1, 1], positions[1, 0])


def test_an_mlp_can_end_with_what_mean_and_deviation_of_a_clips_states_say():
    projector, _ = make("mlp", {"stack_steps": 3, "hidden_size": 8, "ends_with": "statistics"})
    states = states_for(projector, 2, 10)
    positions, num_positions = projector(states, torch.tensor([10, 4]))
    assert num_positions.tolist() == [5, 3]
    for clip, count in enumerate((10, 4)):
        steps = projector.norm_in(states[clip, :count])
        statistics = torch.cat([steps.mean(dim=0), steps.std(dim=0, correction=0)])
        expected = projector.norm_summary(projector.summary_layer(statistics))
        assert torch.allclose(positions[clip, num_positions[clip] - 1], expected, atol=1e-4)


def test_a_clip_of_one_step_has_a_gradient_although_it_has_no_deviation():
    projector, _ = make("mlp", {"stack_steps": 3, "hidden_size": 8, "ends_with": "statistics"})
    positions, _ = projector(states_for(projector, 1, 1), torch.tensor([1]))
    positions.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in projector.parameters())
