"""What trains in float32 is multiplied in 16 bits within a step, where the CPU does that and the model is held so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lalm.training import products
from lalm.training.stages import enter_stage
from lalm.training.trainer import LalmTrainer, training_arguments

RECIPE = SimpleNamespace(name="tiny", output=SimpleNamespace(log_to=()), deepspeed=None)
has_units = pytest.mark.skipif(
    torch.cuda.is_available() or not torch.cpu._is_avx512_bf16_supported(),
    reason="needs a CPU that multiplies in bfloat16, and no GPU",
)


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


@has_units
def test_factors_are_short_within_and_whole_behind():
    torch.manual_seed(0)
    one, other = torch.randn(256, 512), torch.randn(512, 256)
    exact = one @ other
    before = setting()
    with products.short_products(True):
        short = one @ other
    assert setting() == before
    assert torch.equal(one @ other, exact)
    error = (short - exact).abs().max() / exact.std()
    assert 1e-4 < error < 2e-2
    # Sums are in float32: as good as factors that were rounded before.
    rounded = one.bfloat16().float() @ other.bfloat16().float()
    assert (short - rounded).abs().max() < 1e-3


def test_not_enabled_nothing_changes():
    before = setting()
    with products.short_products(False):
        assert setting() == before


@has_units
@pytest.mark.parametrize(
    ("part", "held", "short"),
    [
        ("language_model", torch.bfloat16, True),
        ("language_model", torch.float32, False),
        ("audio_tower", torch.bfloat16, False),  # the language model is to be multiplied in float32
    ],
)
def test_a_step_multiplies_as_the_language_model_is_held(
    tmp_path, tiny_model, tiny_batches, make_stage, part, held, short, monkeypatch
):
    stage = make_stage(steps=2)
    setattr(tiny_model, f"{part}_frozen", nn.Parameter(torch.zeros(2, dtype=held), requires_grad=False))
    enter_stage(tiny_model, stage)
    batches = tiny_batches(2, 1)
    args = training_arguments(RECIPE, stage, tmp_path, num_steps=2, micro_batches=1, seed=0)
    trainer = LalmTrainer(tiny_model, args, stage=stage, train_dataset=batches, keep_checkpoints=1)
    seen, before = [], setting()
    original = LalmTrainer.compute_loss
    monkeypatch.setattr(
        LalmTrainer, "compute_loss", lambda self, *a, **k: (seen.append(setting()), original(self, *a, **k))[1]
    )
    trainer.train()
    assert seen == ["bf16" if short else before] * 2
    assert setting() == before
