"""BEATs as an encoder: Kaldi filterbank in, about 50 states a second out, time first and then frequency.

A clip has the states that it has alone: pieces of different length are never padded to one another. With `padding:
full` a piece is filled to 30 s and masked, as the published code batches it; there the last real frames see the filler.
Source: arXiv 2212.09058; constants from the published front end.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lalm.audio.features import KaldiFrontEnd
from lalm.audio.lengths import Scale
from lalm.encoders.base import AudioEncoder, EncoderOutput, LayerMix, groups_of_equal_length
from lalm.encoders.beats_network import BASE, PATCH_FRAMES, BeatsNetwork, BeatsSizes
from lalm.errors import ModelError
from lalm.recipe.encoders import BeatsSection
from lalm.resources import file_fingerprint, find_base

NUM_MEL_BINS = 128
FILTERBANK_MEAN, FILTERBANK_STD = 15.41663, 6.55582
"""Of AudioSet, as published; the features are divided by twice the deviation."""
PATCHES_PER_COLUMN = NUM_MEL_BINS // PATCH_FRAMES
SHARED_BIAS = "self_attn.relative_attention_bias.weight"
"""Official checkpoints list the one table of position biases under every layer."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class BeatsEncoder(AudioEncoder):
    """Filterbank `[N, 128, F]` -> states `[N, T, width]`, eight for every whole 16 frames."""

    frame_rule = Scale(times=PATCHES_PER_COLUMN, per=PATCH_FRAMES)

    def __init__(self, section: BeatsSection, sizes: BeatsSizes):
        super().__init__()
        self.sizes, self.width = sizes, sizes.encoder_embed_dim
        self.fills_chunk = section.padding == "full"
        self.front_end = KaldiFrontEnd(
            num_mel_bins=NUM_MEL_BINS, padding=section.padding, chunk_seconds=section.chunk_seconds
        )
        self.model = BeatsNetwork(sizes)
        try:
            self.mix = LayerMix(section.layers, sizes.encoder_layers)
        except ValueError as error:
            raise ModelError(f"encoders: beats: {error}") from None

    def config_dict(self) -> dict[str, Any]:
        return asdict(self.sizes)

    def forward(self, features: Tensor, num_frames: Tensor) -> EncoderOutput:
        real = num_frames.tolist()
        steps = [self.frame_rule.count(frames) for frames in real]
        chunk_frames = self.front_end.length_rule().count(self.front_end.chunk_samples)
        run = [
            chunk_frames if self.fills_chunk and count else frames for frames, count in zip(real, steps, strict=True)
        ]
        run = [frames - frames % PATCH_FRAMES if count else 0 for frames, count in zip(run, steps, strict=True)]
        dtype = self.model.layer_norm.weight.dtype
        states = features.new_zeros(len(real), max(steps, default=0), self.width, dtype=dtype)
        for length, indices in groups_of_equal_length(run).items():
            encoded = self._encode(features[indices, :, :length].to(dtype), [steps[index] for index in indices])
            for index, clip in zip(indices, encoded, strict=True):
                states[index, : steps[index]] = clip[: steps[index]]
        return EncoderOutput(states, torch.tensor(steps, device=features.device))

    def _encode(self, features: Tensor, steps: list[int]) -> Tensor:
        filterbank = (features.transpose(1, 2) - FILTERBANK_MEAN) / (2 * FILTERBANK_STD)
        num_patches = self.frame_rule.count(features.shape[2])
        is_padding = None
        if min(steps) < num_patches:
            order = torch.arange(num_patches, device=features.device)
            is_padding = order >= torch.tensor(steps, device=features.device)[:, None]
        return self.mix(self.model(filterbank, is_padding))


def build(section: BeatsSection, config: dict[str, Any] | None) -> BeatsEncoder:
    """Random weights; sizes from `config`, the base's files, or the published ones with `random_sizes` over them."""
    if config is not None:
        return BeatsEncoder(section, BeatsSizes(**config))
    if section.base == "random":
        return BeatsEncoder(section, replace(BASE, **section.random_sizes))
    return BeatsEncoder(section, _read(section.base)[0])


def load(section: BeatsSection) -> BeatsEncoder:
    """The base's weights, from an official checkpoint or a saved folder."""
    sizes, state = _read(section.base)
    encoder = BeatsEncoder(section, sizes)
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
    temporary.write_text(json.dumps({"model_type": "beats", **asdict(encoder.sizes)}, indent=1), encoding="utf-8")
    os.replace(temporary, folder / CONFIG)


def _local(base: str) -> Path:
    found = find_base(base)
    if not isinstance(found, Path):
        raise ModelError(
            f"encoders: beats: base {base!r} is no file or folder here. Name an official BEATs .pt or a saved folder."
        )
    return found


def _read(base: str) -> tuple[BeatsSizes, dict[str, Tensor]]:
    found = _local(base)
    if found.is_dir():
        try:
            config = json.loads((found / CONFIG).read_text(encoding="utf-8"))
            config.pop("model_type")
            return BeatsSizes(**config), load_file(found / WEIGHTS)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{found}: is no saved BEATs ({error}).") from error
    try:
        checkpoint = torch.load(found, map_location="cpu", weights_only=True)
        cfg, state = checkpoint["cfg"], checkpoint["model"]
    except Exception as error:
        raise ModelError(f"{found}: is no official BEATs checkpoint ({error}).") from error
    return BeatsSizes.from_cfg(cfg), _share_bias(state, found)


def _share_bias(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """One table of position biases instead of one for each layer; they must be equal."""
    tables = [value for name, value in state.items() if name.endswith(SHARED_BIAS)]
    if any(not torch.equal(table, tables[0]) for table in tables):
        raise ModelError(f"{path}: the layers' position biases differ; no published BEATs has that.")
    kept = {name: value.float() for name, value in state.items() if not name.endswith(SHARED_BIAS)}
    return {**kept, **({"encoder.relative_attention_bias.weight": tables[0].float()} if tables else {})}
