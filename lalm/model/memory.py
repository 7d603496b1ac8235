"""What a forward and backward pass holds beside the weights, counted without weights.

All parts run on the meta device, where a tensor has a size and no numbers, under a mode that sees every tensor come and
go; so a family, an adapter, gradient checkpointing and attention kernels count as they are. A projector reads lengths,
see `lalm.model.known_lengths`: it runs on one clip, and is multiplied. Checked against the tensors of real steps in the
tests.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import lru_cache, partial
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lalm.audio.features import FrontEnd
from lalm.encoders.base import AudioEncoder
from lalm.model.fewer_layers import extrapolate
from lalm.model.known_lengths import KnownLengths
from lalm.model.loss import losses_in_chunks
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.model.planned import BatchShape
from lalm.projectors.base import Projector

META = torch.device("meta")
SAMPLE_SECONDS = 10.0
"""Length of the clip that the projector is counted on."""


@dataclass(frozen=True)
class PassCost:
    """Of a forward and backward pass: the most bytes held at once beside weights and gradients, and operations.

    A multiplication with its addition is two operations, as `torch` counts them.
    """

    peak_bytes: int = 0
    kept_bytes: int = 0
    """What forward leaves for backward."""
    flops: int = 0

    def times(self, factor: float) -> PassCost:
        return PassCost(*(round(factor * value) for value in astuple(self)))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside and not yet freed: `now`, and `peak`; and operations."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._seen: weakref.WeakSet = weakref.WeakSet()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Never counts these and their views: they were there before."""
        for tensor in tensors:
            self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._seen:
                storage = tensor.untyped_storage()
                self._seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage.nbytes())
        return result

    def _free(self, size: int) -> None:
        self.now -= size


def count_pass(
    model: LalmForConditionalGeneration,
    shape: BatchShape,
    *,
    live_encoder: bool,
    answers: bool = True,
    has_mask: bool = True,
    counted: dict[object, PassCost] | None = None,
) -> PassCost:
    """A training pass of `model` (on the meta device, frozen as the stage freezes it) over one micro-batch.

    Args:
        live_encoder: the encoder runs in the pass; else its states come from the cache.
        answers: the decoder runs; without it only audio and text embeddings are compared.
        has_mask: attention reads a mask of whole rows.
        counted: parts that were counted for a model of the same recipe; it grows.
    """
    counted = {} if counted is None else counted
    checkpointing = model.language_model.is_activation_checkpointing

    def once(name: str, part: nn.Module, settings: tuple, count: Callable[[], PassCost]) -> PassCost:
        key = (name, settings, checkpointing, tuple((p.dtype, p.requires_grad) for p in part.parameters()))
        if key not in counted:
            counted[key] = count()
        return counted[key]

    audio_trains = _trains(model.multi_modal_projector) or _trains(model.audio_tower)
    before, then, last = PassCost(), PassCost(), PassCost()
    if live_encoder and shape.clips:
        encoders = partial(_count_encoders, model, shape)
        before = once("encoders", model.audio_tower, (shape.clips, shape.clip_seconds), encoders)
    if shape.clips:
        sample = once("projector", model.multi_modal_projector, (), partial(_count_projector, model))
        then = sample.times(shape.clips * shape.clip_seconds / SAMPLE_SECONDS)
    if answers:
        pass_of_all = partial(_count_decoder, model, shape, has_gradient=audio_trains, has_mask=has_mask)
        decoder = partial(_of_all_layers, model.language_model, pass_of_all)
        last = once("decoder", model, (shape, audio_trains, has_mask), decoder)
    kept = before.kept_bytes + then.kept_bytes
    return PassCost(
        peak_bytes=max(before.peak_bytes, before.kept_bytes + then.peak_bytes, kept + last.peak_bytes),
        kept_bytes=kept + last.kept_bytes,
        flops=before.flops + then.flops + last.flops,
    )


def _of_all_layers(module: nn.Module, count: Callable[[], PassCost]) -> PassCost:
    return PassCost(*extrapolate(module, lambda: astuple(count())))


def _count_decoder(
    model: LalmForConditionalGeneration, shape: BatchShape, *, has_gradient: bool, has_mask: bool
) -> PassCost:
    language_model = model.language_model
    table = cast(nn.Embedding, model.get_input_embeddings()).weight
    size = (shape.rows, shape.row_positions)
    with _Count(model) as count:
        embeds = torch.empty(*size, table.shape[1], dtype=table.dtype, device=META, requires_grad=has_gradient)
        if model.has_encoder:
            labels = torch.empty(shape.rows, math.ceil(shape.supervised / shape.rows), dtype=torch.long, device=META)
            loss = language_model(inputs_embeds=embeds, labels=labels, use_cache=False).loss
        else:
            if model.cross_attention is not None:
                _set_context(model, shape)
            square = (shape.rows, 1, shape.row_positions, shape.row_positions)
            # A mask that takes no room stands for none: without one, transformers looks into the positions.
            mask = torch.empty(square if has_mask else (1, 1, 1, 1), dtype=table.dtype, device=META).expand(square)
            places = torch.empty(*size, dtype=torch.long, device=META)
            if language_model.is_activation_checkpointing and not has_gradient:
                embeds.requires_grad_()
            hidden = model.get_decoder()(
                inputs_embeds=embeds, attention_mask=mask, position_ids=places, use_cache=False
            ).last_hidden_state
            used = hidden.flatten(0, 1)[: min(shape.supervised, shape.positions)]
            targets = torch.empty(len(used), dtype=torch.long, device=META)
            head = cast(nn.Embedding, model.get_output_embeddings()).weight
            loss = losses_in_chunks(used, targets, model.loss_head(), vocab_size=head.shape[0]).sum()
            del hidden, used
        count.after_forward()
        if loss.requires_grad:
            loss.backward()
        del loss, embeds
    return count.cost()


def _set_context(model: LalmForConditionalGeneration, shape: BatchShape) -> None:
    """Audio vectors for the blocks of cross-attention, one clip behind another in each row."""
    assert model.cross_attention is not None
    seconds = shape.clips * shape.clip_seconds / shape.rows
    count = round(seconds * model.audio_tower.length_rule.count(_samples(model, SAMPLE_SECONDS)) / SAMPLE_SECONDS)
    width = cast(Any, model.cross_attention.blocks[0]).to_key_value.in_features
    states = torch.empty(shape.rows, max(1, count), width, device=META, requires_grad=True)
    clips = torch.empty(states.shape[:2], dtype=torch.long, device=META)
    model.cross_attention.set_context(states, clips, None, shape.row_positions)


def _count_projector(model: LalmForConditionalGeneration) -> PassCost:
    """The projector over one clip of `SAMPLE_SECONDS`."""
    projector = model.multi_modal_projector
    steps = max(1, model.audio_tower.length_rule.count(_samples(model, SAMPLE_SECONDS)))
    width, layers = model.audio_tower.width, projector.num_layer_inputs
    size = (1, layers, steps, width // layers) if layers > 1 else (1, steps, width)
    states, lengths = torch.empty(size, device=META), torch.tensor([steps])
    table = cast(nn.Embedding, model.get_input_embeddings()).weight
    question = (torch.empty(1, 8, table.shape[1], device=META), torch.tensor([8]))
    inputs = (states, lengths, *(question if projector.reads_question else ()))
    was_training = projector.training
    projector.train()
    cost = _of_all_layers(projector, partial(_count_short_projector, projector, inputs))
    projector.train(was_training)
    states_bytes = states.numel() * states.element_size()
    return PassCost(cost.peak_bytes + states_bytes, cost.kept_bytes + states_bytes, cost.flops)


def _count_short_projector(projector: Projector, inputs: tuple[Tensor, ...]) -> PassCost:
    with _Count(projector) as count, KnownLengths():
        positions, _ = projector(*inputs)
        count.after_forward()
        if positions.requires_grad:
            positions.sum().backward()
        del positions
    return count.cost()


def _count_encoders(model: LalmForConditionalGeneration, shape: BatchShape) -> PassCost:
    """All encoders over all clips of the micro-batch; what backward needs only where one trains."""
    costs = []
    for encoder in cast(Iterable[AudioEncoder], model.audio_tower.encoders):
        count = partial(_count_encoder, model, encoder, shape)
        costs.append(_of_all_layers(encoder, count) if encoder.mix.layers == "last" else count())
    kept = sum(cost.kept_bytes for cost in costs)
    return PassCost(
        peak_bytes=max(kept - cost.kept_bytes + cost.peak_bytes for cost in costs),
        kept_bytes=kept,
        flops=sum(cost.flops for cost in costs),
    )


def _count_encoder(model: LalmForConditionalGeneration, encoder: AudioEncoder, shape: BatchShape) -> PassCost:
    samples = max(1, _samples(model, shape.clip_seconds)) / max(1, round(_resampling(model, encoder)))
    num_chunks, num_bins, num_frames = _feature_sizes(encoder.front_end, math.ceil(samples))
    dtype = next(encoder.model.parameters()).dtype
    with _Count(encoder) as count, torch.set_grad_enabled(_trains(encoder)):
        features = torch.empty(shape.clips * num_chunks, num_bins, num_frames, dtype=dtype, device=META)
        states = encoder.encode(features, [num_frames] * len(features))
        count.after_forward()
        if states.requires_grad:
            states.sum().backward()
        del states, features
    return count.cost()


@lru_cache
def _feature_sizes(front_end: FrontEnd, num_samples: int) -> tuple[int, int, int]:
    """Chunks of a clip, and bins and frames of the first."""
    chunks = front_end.chunks(np.zeros(num_samples, np.float32))
    return len(chunks), *chunks[0].features.shape


class _Count:
    """Counts one pass of a module whose weights, and gradients of what trains, are there already."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._live = module, LiveBytes()
        # Also while the backward pass runs checkpointed layers again, where a mode of torch's would not reach.
        self._fused = patch.object(nn.functional, "scaled_dot_product_attention", _fused_attention)
        self._kept = 0
        self._trained: list[Tensor] = []

    def __enter__(self) -> _Count:
        self._trained = []
        held = [*self._module.parameters(), *self._module.buffers()]
        for parameter in held:
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
                self._trained.append(parameter)
        self._live.ignore([*held, *(parameter.grad for parameter in held if parameter.grad is not None)])
        self._fused.start()
        self._live.__enter__()
        return self

    def after_forward(self) -> None:
        """Notes what is held between forward and backward."""
        self._kept = self._live.now

    def __exit__(self, *problem: Any) -> None:
        self._live.__exit__(*problem)
        self._fused.stop()
        for parameter in self._trained:
            parameter.grad = None

    def cost(self) -> PassCost:
        return PassCost(self._live.peak, self._kept, self._live.flops)


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
):
    """`scaled_dot_product_attention`, which the meta device would take apart as no other device does."""
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype, device=META)
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, attn_mask, True)[0]


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _samples(model: LalmForConditionalGeneration, seconds: float) -> int:
    return round(seconds * model.audio_tower.sample_rate_hz)


def _resampling(model: LalmForConditionalGeneration, encoder: AudioEncoder) -> float:
    return model.audio_tower.sample_rate_hz / encoder.front_end.sample_rate_hz
