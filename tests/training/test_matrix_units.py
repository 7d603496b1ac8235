"""Products of float32 in matrix units: while a model with a bfloat16 decoder trains on a CPU that has them."""

from __future__ import annotations

import pytest
import torch

from lalm.recipe.schema import StageSection
from lalm.training.matrix_units import products_in_tiles


def model(dtype: torch.dtype) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Embedding(2, 2, dtype=dtype))


def stage(**options) -> StageSection:
    return StageSection(name="only", learning_rates={"projector": 1e-3}, epochs=1, batch_records=2, **options)


def error() -> float:
    """Of a product of float32, against the same in float64."""
    left, right = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("dtype", "has_tiles", "options"),
    [(torch.bfloat16, False, {}), (torch.float32, True, {}), (torch.bfloat16, True, {"objective": "contrastive"})],
)
def test_elsewhere_nothing_changes(dtype, has_tiles, options, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with products_in_tiles(stage(**options), model(dtype)):
        assert torch.backends.mkldnn.matmul.fp32_precision == before
        assert error() < 1e-5


def test_factors_are_rounded_and_the_sum_is_not():
    if not torch.cpu._is_amx_tile_supported():
        pytest.skip("no matrix tiles (AMX) here")
    before = torch.backends.mkldnn.matmul.fp32_precision
    with products_in_tiles(stage(), model(torch.bfloat16)):
        assert 1e-4 < error() < 5e-3
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert error() < 1e-5
