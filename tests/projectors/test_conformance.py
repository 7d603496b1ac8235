"""Every projector of the table: shapes, lengths, padded = unpadded, batch = one by one, dtype, saved = loaded."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from lalm.projectors import PROJECTORS, build_projector
from lalm.recipe.projectors import ProjectorOptions

ENCODER_WIDTH, DECODER_WIDTH = 24, 16
SMALL = {
    "qformer": [
        {"window_steps": 5, "queries": 2, "num_layers": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32},
        {
            "window_steps": 4,
            "num_layers": 2,
            "hidden_size": 16,
            "num_heads": 4,
            "intermediate_size": 32,
            "partial_window": "drop",
            "cross_attention_every": 2,
        },
        {
            "window_steps": None,
            "queries": 3,
            "num_layers": 1,
            "hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 32,
        },
    ],
    "mlp": [
        {"stack_steps": 3, "hidden_size": 32},
        {"stack_steps": 1, "hidden_size": 8, "num_layers": 1, "normalise": False},
        {"stack_steps": 4, "hidden_size": 8, "num_layers": 3, "activation": "gelu"},
    ],
    "linear": [{"pool_steps": 4, "input_norm": "affine"}, {"input_norm": "plain", "input_scale": 0.02}],
    "conv": [
        {"num_layers": 3, "adapter_size": 8},
        {"num_layers": 1, "kernel_size": 4, "stride": 3, "adapter_size": None},
    ],
    "perceiver": [{"latents": 5, "num_layers": 2, "hidden_size": 16, "num_heads": 4}],
    "mapper": [{"prefix_length": 3, "num_layers": 2, "num_heads": 4}],
}
CASES = [(name, options) for name, cases in SMALL.items() for options in cases]


def make(name, options):
    torch.manual_seed(0)
    section = TypeAdapter(ProjectorOptions).validate_python({"name": name, **options})
    return build_projector(section, ENCODER_WIDTH, DECODER_WIDTH).eval(), section


def test_every_projector_is_tested():
    assert set(SMALL) == set(PROJECTORS)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_positions_follow_the_length_rule(name, options):
    projector, section = make(name, options)
    rule = section.length_rule()
    for steps in range(1, 23):
        positions, num_positions = projector(torch.randn(1, steps, ENCODER_WIDTH), torch.tensor([steps]))
        assert num_positions.tolist() == [rule.count(steps)]
        assert positions.shape[0] == 1
        assert positions.shape[1] >= rule.count(steps)
        assert positions.shape[2] == DECODER_WIDTH


@pytest.mark.parametrize(("name", "options"), CASES)
def test_noise_behind_the_clip_changes_nothing(name, options):
    projector, section = make(name, options)
    steps = torch.tensor([7, 13, 1])
    states = torch.randn(3, 13, ENCODER_WIDTH)
    noisy = torch.cat([states, torch.full((3, 6, ENCODER_WIDTH), 50.0)], dim=1)
    for i, length in enumerate(steps.tolist()):
        noisy[i, length:] = torch.randn(19 - length, ENCODER_WIDTH) * 100
    batched, counts = projector(noisy, steps)
    for i, length in enumerate(steps.tolist()):
        alone, count = projector(states[i : i + 1, :length], steps[i : i + 1])
        assert count.item() == counts[i].item() == section.length_rule().count(length)
        torch.testing.assert_close(batched[i, : count.item()], alone[0, : count.item()], atol=1e-5, rtol=1e-5)
        assert not batched[i, count.item() :].any()


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_gradients_flow(name, options, dtype):
    projector, _ = make(name, options)
    projector = projector.to(dtype).train()
    states = torch.randn(2, 9, ENCODER_WIDTH, dtype=dtype, requires_grad=True)
    positions, _ = projector(states, torch.tensor([9, 4]))
    assert positions.dtype == dtype
    positions.float().square().sum().backward()
    assert states.grad[0].abs().sum() > 0
    assert not states.grad[1, 4:].any()
    assert all(parameter.grad is not None for parameter in projector.parameters())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_saved_is_loaded(name, options):
    projector, _ = make(name, options)
    torch.manual_seed(1)
    other, _ = make(name, options)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(projector.state_dict(), strict=True)
    states, steps = torch.randn(2, 9, ENCODER_WIDTH), torch.tensor([9, 4])
    torch.testing.assert_close(other(states, steps)[0], projector(states, steps)[0])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_start_matches_the_scale_of_the_embeddings(name, options):
    projector, _ = make(name, options)
    projector.match_scale(0.1)
    positions, count = projector(torch.randn(1, 40, ENCODER_WIDTH), torch.tensor([40]))
    assert 0.02 < positions[0, : count.item()].std().item() < 0.3


def test_an_impossible_head_count_is_refused():
    with pytest.raises(ValueError, match="not a multiple of the number of attention heads"):
        make("qformer", {"hidden_size": 10, "num_heads": 3})
