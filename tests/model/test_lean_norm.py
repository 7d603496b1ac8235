"""A frozen norm some rows at a time: transformers' result to the bit, gradients as exact, less kept for them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from lalm.model import lean_norm
from lalm.model.lean_norm import LeanNorm, lean_norms
from lalm.model.memory import LiveBytes

WIDTH = 24


def pair(dtype: torch.dtype, kind: type[nn.Module] = LlamaRMSNorm):
    """The same frozen norm, transformers' and ours."""
    theirs = kind(WIDTH, eps=1e-3)
    theirs.weight = nn.Parameter(torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)), requires_grad=False)
    theirs.to(dtype)
    ours = nn.Sequential(copy.deepcopy(theirs))
    lean_norms(ours)
    return theirs, ours[0]


def passed(norm: nn.Module, shape: tuple[int, ...], dtype: torch.dtype):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, WIDTH, generator=random).to(dtype).requires_grad_()
    result = norm(x)
    result.backward(torch.randn(*shape, WIDTH, generator=random).to(dtype))
    return result.detach(), x.grad


@pytest.fixture(params=[1, 5 * WIDTH, 2**17], ids=["a row at a time", "five rows", "all rows"])
def block(request, monkeypatch):
    monkeypatch.setattr(lean_norm, "BLOCK_NUMBERS", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("shape", [(2, 7), (1, 1), (13,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_theirs_and_gradients_as_exact(dtype, shape):
    theirs, ours = pair(dtype)
    assert isinstance(ours, LeanNorm)
    exact_norm, _ = pair(torch.float32)
    exact_norm.weight.data = theirs.weight.data.float()
    exact = passed(exact_norm, shape, torch.float32)[1]
    (result, gradient), (expected, their_gradient) = passed(ours, shape, dtype), passed(theirs, shape, dtype)
    assert torch.equal(result, expected)
    assert gradient.dtype == dtype
    if dtype == torch.float32:
        torch.testing.assert_close(gradient, their_gradient, atol=1e-6, rtol=1e-5)
    else:
        assert (gradient - their_gradient).norm() < 0.01 * their_gradient.norm()
        assert (gradient.float() - exact).norm() < 0.02 * exact.norm()


def test_an_input_that_is_not_contiguous():
    theirs, ours = pair(torch.float32)
    base = torch.randn(WIDTH, 5)
    found = []
    for norm in (theirs, ours):
        x = base.clone().requires_grad_()
        (norm(x.t()) ** 3).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)


def test_less_is_kept_for_the_backward_pass():
    kept = []
    for norm in pair(torch.bfloat16):
        x = torch.randn(500, WIDTH).bfloat16().requires_grad_()
        with LiveBytes() as live:
            live.ignore([x, *norm.parameters()])
            result = norm(x)
            kept.append(live.now)
        del result
    theirs, ours = kept
    assert ours < 0.5 * theirs


@pytest.mark.parametrize("what", ["weight trains", "no gradient", "input does not train", "another type"])
def test_everything_else_is_theirs(what, monkeypatch):
    theirs, ours = pair(torch.float32)
    monkeypatch.setattr(lean_norm._RMSNorm, "apply", None)
    for norm in (theirs, ours):
        norm.weight.requires_grad_(what == "weight trains")
    x = torch.randn(3, WIDTH, dtype=torch.bfloat16 if what == "another type" else torch.float32)
    x.requires_grad_(what != "input does not train")
    with torch.set_grad_enabled(what != "no gradient"):
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("kind", "is_lean"), [(LlamaRMSNorm, True), (Qwen2RMSNorm, True), (GemmaRMSNorm, False)])
def test_only_norms_of_that_formula(kind, is_lean):
    norm = kind(WIDTH)
    kept = norm.weight
    lean_norms(norm)
    assert isinstance(norm, LeanNorm) == is_lean
    assert type(norm).__name__ == kind.__name__
    assert norm.weight is kept
