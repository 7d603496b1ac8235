"""Liger's kernels on a decoder: who gets them, what is refused, that nothing else of the process changes."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers.models.llama import modeling_llama

from lalm.errors import MissingPackageError, ModelError
from lalm.model import fused_kernels
from lalm.model.decoder import add_lora, random_language_model
from lalm.model.fused_kernels import fuse_kernels
from lalm.recipe.schema import LanguageModelSection, LoraSection


def decoder(family: str = "llama", kernels: str = "none", **sizes):
    torch.manual_seed(0)
    return random_language_model(
        LanguageModelSection(base="random", random_family=family, random_sizes=sizes, kernels=kernels)
    )


@pytest.fixture
def liger(monkeypatch):
    """A package of that name, whose llama function changes what the real one does."""

    def change(rope: bool = True, fused_linear_cross_entropy: bool = True, rms_norm: bool = True, model=None) -> None:
        modeling_llama.apply_rotary_pos_emb = lambda query, *rest: "liger"
        modeling_llama.LlamaRMSNorm = torch.nn.Identity
        model.model.norm.forward = lambda x: "liger"
        if fused_linear_cross_entropy:
            model.forward = None

    package, patch = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers.monkey_patch")
    package.__spec__ = ModuleSpec("liger_kernel", None)
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": change}
    for name, made in {
        "liger_kernel": package,
        "liger_kernel.transformers": ModuleType("t"),
        patch.__name__: patch,
    }.items():
        monkeypatch.setitem(sys.modules, name, made)
    kept = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: package.__spec__)
    yield patch
    modeling_llama.apply_rotary_pos_emb = kept


def test_without_a_gpu_nothing_changes_and_liger_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = decoder()
    assert not fuse_kernels(model, "auto")
    with pytest.raises(ModelError, match=r"kernels: liger needs a GPU\. Use auto or none"):
        fuse_kernels(model, "liger")


def test_without_the_package_auto_goes_on_and_liger_says_what_to_install(monkeypatch):
    model = decoder()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: None)
    assert not fuse_kernels(model, "auto")
    with pytest.raises(MissingPackageError, match=r"'liger-kernel'.*lalm\[gpu\]"):
        fuse_kernels(model, "liger")


def test_the_model_alone_is_changed(liger, monkeypatch):
    model, other = decoder(), decoder()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    norm, rotary = modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb
    assert fuse_kernels(model, "auto")
    assert modeling_llama.LlamaRMSNorm is norm
    states = torch.randn(2, 32)
    assert torch.equal(model.model.norm(states), other.model.norm(states))  # on a CPU
    assert model.model.norm(SimpleNamespace(is_cuda=True)) == "liger"
    heads = torch.randn(1, 2, 3, 4)
    turned = torch.randn(1, 3, 4)
    assert modeling_llama.apply_rotary_pos_emb is not rotary
    for ours, theirs in zip(
        modeling_llama.apply_rotary_pos_emb(heads, heads, turned, turned),
        rotary(heads, heads, turned, turned),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert modeling_llama.apply_rotary_pos_emb(SimpleNamespace(is_cuda=True), None) == "liger"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch.isfinite(other(torch.tensor([[1, 2, 3]])).logits).all()


def test_a_family_that_it_does_not_know(liger, monkeypatch):
    model = decoder("gpt2", n_embd=32, n_layer=2, n_head=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not fuse_kernels(model, "auto")
    with pytest.raises(ModelError, match=r"has none for 'gpt2'\. It has them for: llama"):
        fuse_kernels(model, "liger")


def test_a_version_that_takes_the_loss_over_is_refused(liger, monkeypatch):
    def change(model=None) -> None:
        model.forward = lambda *args: None

    liger.MODEL_TYPE_TO_APPLY_LIGER_FN["llama"] = change
    model = decoder()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelError, match=r"changes the loss of 'llama'\. Use none"):
        fuse_kernels(model, "auto")


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "smollm3"])
def test_on_a_gpu_states_and_gradients_are_those_without(family):
    pytest.importorskip("liger_kernel")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
             "pad_token_id": 0}  # fmt: skip
    plain, fused = decoder(family, **sizes), decoder(family, "liger", **sizes)
    fused.load_state_dict(plain.state_dict())
    embeds = torch.randn(2, 37, 64, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    weights = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(3)).cuda()
    found = []
    for model in (plain, fused):
        model.cuda().requires_grad_(False)
        add_lora(model, LoraSection(rank=4, targets="attention", dropout=0.0))
        torch.manual_seed(2)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = torch.randn(parameter.shape).cuda() * 0.1
        inputs = embeds.clone().requires_grad_()
        states = model.get_decoder()(inputs_embeds=inputs, use_cache=False).last_hidden_state
        (states * weights).sum().backward()  # a sum of squares behind a norm would have no gradient
        adapter = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
        found.append((states.detach(), inputs.grad, torch.cat(adapter)))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() / one.norm() < 2e-3  # tf32 is off; Triton's products are few
