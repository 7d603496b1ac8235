"""CAV-MAE's audio branch (arXiv 2210.07839), fine-tuned on AudioSet, which LTU and GAMA train further.

Filterbank in, the mean over frequency of each column of patches out: 64 states for 10.24 s. `base` is an official file:
a fine-tuned CAV-MAE (`as_46.6.pth`), or a checkpoint of LTU or GAMA, of which the encoder is taken.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lalm.audio.features import AstFrontEnd
from lalm.audio.lengths import Constant, Conv
from lalm.encoders.base import AudioEncoder, layer_mix
from lalm.encoders.cav_mae_network import NUM_MEL_BINS, PATCH, ROWS, CavMaeNetwork, CavMaeSizes
from lalm.errors import ModelError
from lalm.recipe.encoders import CavMaeSection
from lalm.resources import file_fingerprint, find_base

FRAME_SECONDS = 0.01
FILTERBANK_MEAN, FILTERBANK_STD = -5.081, 4.4849 / 2
"""As LTU and GAMA normalise; the features are divided by twice the deviation."""
HEAD_WIDTH = 64
"""Of every published checkpoint."""
RANDOM_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
"""Sizes of a `base: random` encoder, for tests."""
PUBLISHED_NAMES = (
    (r"patch_embedding\.(\w+)", r"patch_embed_a.proj.\1"),
    (r"positions", "pos_embed_a"),
    (r"modality", "modality_a"),
    (r"audio_blocks\.(\d+)\.(norm[12])\.(\w+)", r"blocks_a.\1.\2.\3"),
    (r"joint_blocks\.(\d+)\.(norm[12])\.(\w+)", r"blocks_u.\1.\2_a.\3"),
    (r"audio_blocks\.(\d+)\.(qkv|proj)\.(\w+)", r"blocks_a.\1.attn.\2.\3"),
    (r"joint_blocks\.(\d+)\.(qkv|proj)\.(\w+)", r"blocks_u.\1.attn.\2.\3"),
    (r"audio_blocks\.(\d+)\.(fc[12])\.(\w+)", r"blocks_a.\1.mlp.\2.\3"),
    (r"joint_blocks\.(\d+)\.(fc[12])\.(\w+)", r"blocks_u.\1.mlp.\2.\3"),
    (r"norm\.(\w+)", r"norm_a.\1"),
    (r"tap_norms\.8\.(\w+)", r"norm_j.\1"),
    (r"tap_norms\.4\.(\w+)", r"norm_k.\1"),
)
"""Patterns of our parameters -> their names in official files. GAMA taps blocks 8 and 4, counted from 0."""
UNREAD_NAMES = (
    r"blocks_a\.\d+\.norm[12]_[av]\.\w+",
    r"blocks_u\.\d+\.norm[12](_v)?\.\w+",
    r"norm_[jk]\.\w+",
)
"""What the audio branch holds and sound never passes through, or only where a layer is tapped."""
OTHER_BRANCHES = r"(patch_embed_v|modality_v|pos_embed_v|blocks_v|norm_v|norm|mlp_head)(\..+)?"
"""Of a whole CAV-MAE: the image branch and the labels."""
PREFIXES = ("base_model.model.model.audio_encoder.", "module.")
"""In front of the encoder's names in a checkpoint of LTU or GAMA, and in one of CAV-MAE."""
TAP_NORM = "tap_norms."
SHOWN_NAMES = 5


class CavMaeEncoder(AudioEncoder):
    """Filterbank `[N, 128, F]` -> states `[N, T, hidden_size]`, one for every 16 frames."""

    front_end: AstFrontEnd
    model: CavMaeNetwork

    def __init__(self, section: CavMaeSection, sizes: CavMaeSizes):
        super().__init__()
        self.sizes, self.layer_width = sizes, sizes.hidden_size
        self.front_end = AstFrontEnd(
            padding=section.padding,
            chunk_seconds=sizes.max_length * FRAME_SECONDS,
            num_mel_bins=NUM_MEL_BINS,
            chunk_frames=sizes.max_length,
            mean=FILTERBANK_MEAN,
            std=FILTERBANK_STD,
        )
        whole = Constant(outputs=sizes.columns)
        self.frame_rule = whole if section.keep_filler else Conv(kernel=PATCH, stride=PATCH)
        self.mix = layer_mix(section, sizes.num_hidden_layers, "cav_mae")
        layers = section.layers if isinstance(section.layers, tuple) else ()
        self.model = CavMaeNetwork(sizes, sorted({*layers} - {sizes.num_hidden_layers - 1}))

    @property
    def step_seconds(self) -> float:
        return PATCH * FRAME_SECONDS

    def config_dict(self) -> dict[str, Any]:
        return asdict(self.sizes)

    def shown_frames(self, real_frames: int) -> int:
        return self.front_end.chunk_frames if self.front_end.padding == "full" else real_frames

    def encode(self, features: Tensor, num_frames: list[int]) -> Tensor:
        return self.mix(self.model(features)).unflatten(1, (ROWS, -1)).mean(dim=1)


def build(section: CavMaeSection, config: dict[str, Any] | None) -> CavMaeEncoder:
    """Random weights; sizes from `config`, the base's file, or small ones with `random_sizes` over them."""
    if config is not None:
        return CavMaeEncoder(section, CavMaeSizes(**config))
    if section.base == "random":
        return CavMaeEncoder(section, CavMaeSizes(**cast(dict[str, Any], {**RANDOM_SIZES, **section.random_sizes})))
    return CavMaeEncoder(section, _sizes_of(_read(section.base), section.base))


def load(section: CavMaeSection) -> CavMaeEncoder:
    """The base's weights in float32, exactly; norms of tapped layers that it has not are as at their start.

    Raises:
        ModelError: if the file cannot be read without running code of its own, or a tensor is missing, left over or of
            another shape.
    """
    state = _read(section.base)
    encoder = CavMaeEncoder(section, _sizes_of(state, section.base))
    problems, used = [], set()
    with torch.no_grad():
        for ours, parameter in encoder.model.named_parameters():
            theirs = published_name(ours)
            if theirs not in state:
                problems += [] if ours.startswith(TAP_NORM) else [f"missing {theirs}"]
            elif state[theirs].shape != parameter.shape:
                problems.append(f"{theirs} is {tuple(state[theirs].shape)}, not {tuple(parameter.shape)}")
            else:
                parameter.copy_(state[theirs])
            used.add(theirs)
    passed_over = "|".join((*UNREAD_NAMES, OTHER_BRANCHES))
    problems += [f"left over {name}" for name in sorted(state.keys() - used) if not re.fullmatch(passed_over, name)]
    if problems:
        more = f" and {len(problems) - SHOWN_NAMES} more" if len(problems) > SHOWN_NAMES else ""
        raise ModelError(
            f"encoders: {section.base!r} does not fit CAV-MAE's audio branch: {'; '.join(problems[:SHOWN_NAMES])}{more}"
        )
    return encoder


def fingerprint(section: CavMaeSection) -> str:
    """Weights and options."""
    weights = "random" if section.base == "random" else file_fingerprint(_local(section.base))
    return hashlib.sha256(f"{weights}:{section.model_dump_json(exclude={'base'})}".encode()).hexdigest()


def published_name(ours: str) -> str | None:
    """The name of one of the network's parameters in official files; None for the norm of a layer they never tap."""
    for pattern, theirs in PUBLISHED_NAMES:
        if (match := re.fullmatch(pattern, ours)) is not None:
            return match.expand(theirs)
    return None


def _local(base: str) -> Path:
    found = find_base(base)
    if not isinstance(found, Path) or not found.is_file():
        raise ModelError(
            f"encoders: cav_mae: base {base!r} is no file here. Name an official file: a fine-tuned CAV-MAE "
            "(as_46.6.pth), or a checkpoint of LTU or GAMA."
        )
    return found


def _read(base: str) -> dict[str, Tensor]:
    """The encoder's tensors by the names that they have in it."""
    path = _local(base)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        names = [*content]
    except Exception as error:  # torch raises unpickling, zip, end-of-file and runtime errors here
        raise ModelError(f"{path}: cannot be read as tensors alone ({type(error).__name__}: {error})") from error
    for prefix in PREFIXES:
        if f"{prefix}pos_embed_a" in names:
            return {name.removeprefix(prefix): content[name] for name in names if name.startswith(prefix)}
    raise ModelError(
        f"{path}: holds no audio branch of CAV-MAE; a fine-tuned CAV-MAE has '{PREFIXES[1]}pos_embed_a', a "
        f"checkpoint of LTU or GAMA '{PREFIXES[0]}pos_embed_a'."
    )


def _sizes_of(state: dict[str, Tensor], base: str) -> CavMaeSizes:
    blocks = {match[0] for name in state if (match := re.match(r"blocks_[au]\.\d+\.", name))}
    try:
        _, positions, width = state["pos_embed_a"].shape
        intermediate = state["blocks_u.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ModelError(f"encoders: {base!r} is no whole audio branch of CAV-MAE ({error}).") from error
    return CavMaeSizes(
        hidden_size=width,
        num_hidden_layers=len(blocks),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        intermediate_size=intermediate,
        max_length=positions // ROWS * PATCH,
    )
