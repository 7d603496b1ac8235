"""Runs a module on the meta device though it reads lengths: whole numbers and truths are computed, the rest has sizes.

    with KnownLengths():
        projector(states_on_meta, lengths_on_the_cpu)

Masks come from lengths and places, and what is taken where a mask holds has a size that only numbers tell. So tensors
of whole numbers and truths are made on the CPU, whatever device is asked for; an operation that also takes a tensor
without numbers gives one without.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

META = torch.device("meta")
_aten = torch.ops.aten
_TAKES_PLACES = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index)
"""Operations whose second argument is a list of places, or of a mask."""


class KnownLengths(TorchDispatchMode):
    """The mode of this module; other modes outside it see what is computed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == META and _makes_whole_numbers(func, args, kwargs):
            kwargs["device"] = torch.device("cpu")
        tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        if any(item.is_meta for item in tensors) and not all(item.is_meta for item in tensors):
            if func._overloadpacket is _aten.masked_select:
                return args[0].new_empty(int(args[1].expand(args[0].shape).sum()))
            if func._overloadpacket in _TAKES_PLACES:
                args = (args[0], [place for item in args[1] for place in _places(item)], *args[2:])
            args, kwargs = tree_map(_without_numbers, args), tree_map(_without_numbers, kwargs)
        return func(*args, **kwargs)


def _makes_whole_numbers(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    if func._overloadpacket is _aten._to_copy:
        return not args[0].is_meta
    if any(isinstance(item, Tensor) and item.is_meta for item in args):
        return False
    if (dtype := kwargs.get("dtype")) is not None:
        return not (dtype.is_floating_point or dtype.is_complex)
    # Without a type, whole numbers and truths that are written down make tensors of them.
    is_written = func._overloadpacket in (_aten.arange, _aten.full, _aten.scalar_tensor)
    return is_written and not any(isinstance(item, float) for item in tree_leaves(args))


def _places(item: Tensor | None) -> list[Tensor | None]:
    if item is None or item.dtype != torch.bool or item.is_meta:
        return [item]
    return [*item.nonzero().unbind(-1)]


def _without_numbers(item: Any) -> Any:
    """A tensor as one on the meta device; a single number stays, as it may stand beside tensors of any device."""
    is_known = isinstance(item, Tensor) and not item.is_meta and item.ndim
    return torch.empty_like(item, device=META) if is_known else item
