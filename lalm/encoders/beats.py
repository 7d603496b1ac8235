"""BEATs as an encoder: Kaldi filterbank in, about 50 states a second out, time first and then frequency.

A clip has the states that it has alone: pieces of different length are never padded to one another. `padding: full` is
the switch to the published code's batches, of which the longest clip fills the chunk: a piece is filled with silence
and masked by that code's rule, so frames behind the clip's end count as real, and hear and are heard by the rest.
Source: arXiv 2212.09058; constants from the published front end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lalm.audio.features import BatchedKaldiFrontEnd, KaldiFrontEnd
from lalm.audio.lengths import AtMost, Chain, Hops, LengthRule, Scale
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.beats_network import BASE, NO_LABEL_HEAD, PATCH_FRAMES, BeatsNetwork, BeatsSizes
from lalm.errors import ModelError
from lalm.recipe.encoders import BeatsSection
from lalm.resources import file_fingerprint, find_base

NUM_MEL_BINS = 128
FILTERBANK_MEAN, FILTERBANK_STD = 15.41663, 6.55582
"""Of AudioSet, as published; the features are divided by twice the deviation."""
OWN_RULE = Scale(times=NUM_MEL_BINS // PATCH_FRAMES, per=PATCH_FRAMES)
"""Patches of a clip alone: eight for every whole 16 frames."""
SHARED_BIAS = "self_attn.relative_attention_bias.weight"
"""Official checkpoints list the one table of position biases under every layer."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class BeatsEncoder(AudioEncoder):
    """Filterbank `[N, 128, F]` -> states `[N, T, width]`, eight for every whole 16 frames.

    Attributes:
        labels: what the classes of a fine-tuned checkpoint's head stand for (AudioSet's identifiers in the published
            ones), in the head's order; empty where the checkpoint names none.
    """

    front_end: KaldiFrontEnd
    model: BeatsNetwork

    def __init__(self, section: BeatsSection, sizes: BeatsSizes, labels: Sequence[str] = ()):
        super().__init__()
        self.sizes, self.width, self.labels = sizes, sizes.encoder_embed_dim, tuple(labels)
        front_end = BatchedKaldiFrontEnd if section.padding == "full" else KaldiFrontEnd
        self.front_end = front_end(num_mel_bins=NUM_MEL_BINS, chunk_seconds=section.chunk_seconds)
        self.fills_chunk = section.padding == "full"
        self.frame_rule = self._batch_rule() if self.fills_chunk else OWN_RULE
        self.model = BeatsNetwork(sizes)
        self.mix = layer_mix(section.layers, sizes.encoder_layers, "beats")

    def config_dict(self) -> dict[str, Any]:
        return {**asdict(self.sizes), **({"labels": list(self.labels)} if self.labels else {})}

    def shown_frames(self, real_frames: int) -> int:
        shown = self._chunk_frames() if self.fills_chunk else real_frames
        return shown - shown % PATCH_FRAMES

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        return self.mix(self._layers(features, [self.frame_rule.count(frames) for frames in num_frames]))

    @torch.no_grad()
    def classify(self, features: Tensor, num_frames: Tensor) -> Tensor:
        """Probabilities `[N, classes]` by the label head of a fine-tuned checkpoint; the names are `labels`.

        `features [N, 128, F]`, `num_frames [N]` as for `forward`; a piece without steps has probability 0 everywhere.

        Raises:
            ModelError: if the checkpoint was not fine-tuned.
        """
        if self.model.predictor is None:
            raise ModelError(NO_LABEL_HEAD)
        steps = [self.frame_rule.count(frames) for frames in num_frames.tolist()]
        found = features.new_zeros(len(steps), self.sizes.predictor_class)
        for index, (frames, count) in enumerate(zip(num_frames.tolist(), steps, strict=True)):
            if count:
                piece = features[index : index + 1, :, : self.shown_frames(frames)].to(
                    self.model.layer_norm.weight.dtype
                )
                found[index] = self.model.classify(self._layers(piece, [count])[-1][:, :count])[0].to(found.dtype)
        return found

    def _layers(self, features: Tensor, num_steps: list[int]) -> list[Tensor]:
        filterbank = (features.transpose(1, 2) - FILTERBANK_MEAN) / (2 * FILTERBANK_STD)
        num_patches = OWN_RULE.count(features.shape[2])
        is_padding = None
        if min(num_steps) < num_patches:
            order = torch.arange(num_patches, device=features.device)
            is_padding = order >= torch.tensor(num_steps, device=features.device)[:, None]
        return self.model(filterbank, is_padding)

    def _chunk_frames(self) -> int:
        return KaldiFrontEnd.length_rule(self.front_end).count(self.front_end.chunk_samples)

    def _batch_rule(self) -> LengthRule:
        """As published: the frames are cut into as many equal runs as there are patches."""
        frames = self._chunk_frames()
        patches = max(OWN_RULE.count(frames), 1)
        return Chain(rules=(Hops(hop_samples=max(frames // patches, 1)), AtMost(limit=patches)))


def build(section: BeatsSection, config: dict[str, Any] | None) -> BeatsEncoder:
    """Random weights; sizes from `config`, the base's files, or the published ones with `random_sizes` over them."""
    if config is not None:
        labels = config.get("labels", ())
        return BeatsEncoder(section, BeatsSizes(**{k: v for k, v in config.items() if k != "labels"}), labels)
    if section.base == "random":
        return BeatsEncoder(section, replace(BASE, **cast(dict[str, Any], section.random_sizes)))
    sizes, _, labels = _read(section.base)
    return BeatsEncoder(section, sizes, labels)


def load(section: BeatsSection) -> BeatsEncoder:
    """The base's weights, from an official checkpoint or a saved folder."""
    sizes, state, labels = _read(section.base)
    encoder = BeatsEncoder(section, sizes, labels)
    try:
        encoder.model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError(f"encoders: {section.base!r} does not fit BEATs: {error}") from None
    return encoder


def fingerprint(section: BeatsSection) -> str:
    """Weights, layers and padding."""
    weights = "random" if section.base == "random" else file_fingerprint(_local(section.base))
    return hashlib.sha256(f"{weights}:{section.model_dump_json(exclude={'base'})}".encode()).hexdigest()


def save_beats(encoder: BeatsEncoder, folder: Path) -> None:
    """Writes config.json and model.safetensors, so that nobody needs the pickle twice."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in encoder.model.state_dict().items()}, folder / WEIGHTS)
    temporary = folder / f".{CONFIG}.{os.getpid()}"
    temporary.write_text(json.dumps({"model_type": "beats", **encoder.config_dict()}, indent=1), encoding="utf-8")
    os.replace(temporary, folder / CONFIG)


def _local(base: str) -> Path:
    found = find_base(base)
    if not isinstance(found, Path):
        raise ModelError(
            f"encoders: beats: base {base!r} is no file or folder here. Name an official BEATs .pt or a saved folder."
        )
    return found


def _read(base: str) -> tuple[BeatsSizes, dict[str, Tensor], tuple[str, ...]]:
    found = _local(base)
    if found.is_dir():
        try:
            config = json.loads((found / CONFIG).read_text(encoding="utf-8"))
            config.pop("model_type")
            labels = tuple(config.pop("labels", ()))
            return BeatsSizes(**config), load_file(found / WEIGHTS), labels
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{found}: is no saved BEATs ({error}).") from error
    try:
        checkpoint = torch.load(found, map_location="cpu", weights_only=True)
        cfg, state = checkpoint["cfg"], checkpoint["model"]
    except Exception as error:
        raise ModelError(f"{found}: is no official BEATs checkpoint ({error}).") from error
    sizes = BeatsSizes.from_cfg(cfg)
    return sizes, _share_bias(state, found), _read_labels(checkpoint.get("label_dict"), sizes, found)


def _read_labels(label_dict: Any, sizes: BeatsSizes, path: Path) -> tuple[str, ...]:
    """`{0: "/m/09x0r", ...}` of a fine-tuned checkpoint as names in the head's order."""
    if not sizes.finetuned_model or label_dict is None:
        return ()
    order = {int(index): str(label) for index, label in label_dict.items()}
    if sorted(order) != [*range(sizes.predictor_class)]:
        raise ModelError(
            f"{path}: label_dict names {len(order)} classes, the head has {sizes.predictor_class}. "
            "The file is damaged or its head was exchanged; take the published one again."
        )
    return tuple(order[index] for index in range(sizes.predictor_class))


def _share_bias(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """One table of position biases instead of one for each layer; they must be equal."""
    tables = [value for name, value in state.items() if name.endswith(SHARED_BIAS)]
    if any(not torch.equal(table, tables[0]) for table in tables):
        raise ModelError(f"{path}: the layers' position biases differ; no published BEATs has that.")
    kept = {name: value.float() for name, value in state.items() if not name.endswith(SHARED_BIAS)}
    return {**kept, **({"encoder.relative_attention_bias.weight": tables[0].float()} if tables else {})}
