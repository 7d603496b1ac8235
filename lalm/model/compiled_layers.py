"""Decoder layers that `torch.compile` puts together for training on a CPU.

Products are a part of a layer's time there; norms, rotary embeddings, gates, sums and copies are the rest, each a pass
over memory. Compiled, they are fewer passes: a step of SmolLM2-135M on two cores takes 0.7 of its time
(`lalm bench train`). Attention in groups stays as it is: between two compiled pieces, or in the middle of one where it
is a kernel (`lalm.model.tiled_groups`). Compiling takes a minute the first time, and some seconds where the cache of
torch's compiler has it; so it pays in long stages only.

Computed in wider numbers between roundings, so results are the eager layer's up to the rounding of 16 bits.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lalm.errors import ModelError
from lalm.model.decoder import decoder_layers
from lalm.model.grouped_attention import is_grouped
from lalm.model.sharding import is_whole

FAMILIES = ("llama", "qwen2", "qwen3")
"""Whose layers `auto` compiles: those that are tested so."""
_COMPILED = "_lalm_compiled"
"""What marks a layer whose `forward` was replaced."""


def why_not_compiled(model: PreTrainedModel) -> str | None:
    """What keeps a model's layers from being compiled; None where nothing does."""
    if model.device.type != "cpu":
        return f"on {model.device.type} fused kernels do it (language_model.kernels)"
    if model.config.is_encoder_decoder:
        return "the model has an encoder"
    if not is_grouped(model):
        return "attention is not grouped"
    if any(not is_whole(parameter) for parameter in model.parameters()):
        return "its weights are dealt out over processes"
    if getattr(model, "is_quantized", False):
        return "it is quantised"
    return why_no_compiler()


@functools.cache
def why_no_compiler() -> str | None:
    """Why torch cannot compile on this machine; None where it can. It is tried: torch needs a C++ compiler and Python's
    headers, and says what it misses only when it compiles."""
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    try:
        torch.compile(lambda x: (x * 2 + 1).cos())(torch.ones(64))
    except Exception as error:  # whatever the compiler's tools raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"torch cannot compile here ({type(error).__name__}: {lines[0] if lines else ''})"
    return None


def is_tested_family(model: PreTrainedModel) -> bool:
    """Whether `auto` may compile a model's layers."""
    return model.config.get_text_config().model_type in FAMILIES


def compile_layers(model: PreTrainedModel) -> None:
    """Compiles the layers of a decoder for training, in place. They stay as they are in eval mode, where a decoder is
    fed token by token.

    Raises:
        ModelError: if they cannot be, see `why_not_compiled`.
    """
    if (reason := why_not_compiled(model)) is not None:
        raise ModelError(f"language_model.compile: layers: {reason}. Use auto or none.")
    for layer in decoder_layers(model):
        if not hasattr(layer, _COMPILED):
            setattr(layer, _COMPILED, True)
            layer.forward = _in_training(layer, layer.forward)


def leave_layers(model: PreTrainedModel) -> None:
    """Takes `compile_layers` back, in place; nothing where it was not called."""
    for layer in model.modules():
        if hasattr(layer, _COMPILED):
            del layer.forward
            delattr(layer, _COMPILED)


@functools.cache
def _options() -> dict[str, Any]:
    """What torch's compiler is told."""
    from lalm.model.row_products import NarrowingProducts, why_no_row_products

    return {} if why_no_row_products() else {"post_grad_custom_post_pass": NarrowingProducts()}


def _in_training(layer: nn.Module, eager: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(eager, dynamic=True, options=_options())

    @functools.wraps(eager)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if layer.training else eager)(*args, **kwargs)

    return forward
