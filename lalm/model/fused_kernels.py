"""Liger's Triton kernels for a decoder's norms, gates and rotary embeddings on a GPU (arXiv 2410.10989).

Written as transformers writes them, these three read and write every activation several times. The package's own
function changes the family's module for the whole process; here that is undone, and what it changed chooses by where
its input lies, so that a model on a CPU stays what it was. The loss keeps its own way, see `lalm.model.loss`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lalm.errors import MissingPackageError, ModelError

KEPT = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""What the package would change and we compute ourselves."""
BACKENDS = "liger_kernel.backends.registry"
"""The package's logger that speaks of other makers' chips."""
ROTARY = "apply_rotary_pos_emb"
"""transformers' name, in the module of a family, of what turns queries and keys."""


def fuse_kernels(model: PreTrainedModel, name: str) -> bool:
    """Puts the kernels on a decoder, in place; returns whether it has them now.

    Args:
        name: `liger`; `auto`, where there is a GPU, the package and the family in it; or `none`.

    Raises:
        ModelError: if `liger` is asked for and this machine has no GPU, or the package does not know the family.
        MissingPackageError: if `liger` is asked for and not installed.
    """
    if name == "none" or (name == "auto" and not (torch.cuda.is_available() and find_spec("liger_kernel"))):
        return False
    if not torch.cuda.is_available():
        raise ModelError("language_model.kernels: liger needs a GPU. Use auto or none.")
    if find_spec("liger_kernel") is None:
        raise MissingPackageError("liger-kernel", "language_model.kernels: liger", "gpu")
    logging.getLogger(BACKENDS).setLevel(logging.ERROR)  # It warns of chips that are not there.
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as FAMILIES

    family = model.config.model_type
    if family not in FAMILIES:
        if name == "auto":
            return False
        raise ModelError(
            f"language_model.kernels: liger has none for '{family}'. It has them for: {', '.join(sorted(FAMILIES))}. "
            "Use auto or none."
        )
    _apply(model, FAMILIES[family])
    return True


def _apply(model: PreTrainedModel, change: Callable[..., None]) -> None:
    """`change` is the package's function of the family."""
    module = sys.modules[type(model).__module__]
    before, forward = dict(vars(module)), model.forward
    already = {part for part in model.modules() if "forward" in part.__dict__}
    change(model=model, **{key: value for key, value in KEPT.items() if key in signature(change).parameters})
    changed = {key: vars(module)[key] for key, value in before.items() if vars(module)[key] is not value}
    for key in changed:
        setattr(module, key, before[key])
    if model.forward != forward:
        raise ModelError(
            f"language_model.kernels: this version of liger-kernel changes the loss of '{model.config.model_type}'. "
            "Use none."
        )
    if ROTARY in changed:
        setattr(module, ROTARY, _by_device(changed[ROTARY], before[ROTARY]))
    for part in model.modules():
        if "forward" in part.__dict__ and part not in already:
            part.__dict__["forward"] = _by_device(part.__dict__["forward"], type(part).forward.__get__(part))


def _by_device(on_gpu: Callable[..., Any], elsewhere: Callable[..., Any]) -> Callable[..., Any]:
    """One of two functions of a tensor: the kernels, and what they stand for."""

    def run(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (on_gpu if first.is_cuda else elsewhere)(first, *args, **kwargs)

    return run
