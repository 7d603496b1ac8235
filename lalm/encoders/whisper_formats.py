"""Whisper's encoder weights in every form that people have them, under transformers' names.

A transformers folder or hub name (a whole Whisper, or its encoder alone); an official OpenAI `.pt`, or `openai:NAME`
for one in that package's own cache; a CTranslate2 folder (faster-whisper). Names are matched exactly.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lalm.ctranslate2 import read_variables, whisper_sizes
from lalm.errors import MissingPackageError, ModelError
from lalm.resources import base_sizes, file_fingerprint, find_base

OPENAI_PREFIX = "openai:"
ENCODER_PREFIXES = ("model.encoder.", "encoder.")
"""Before the encoder's names in a transformers file of a whole Whisper; a file of the encoder alone has none."""
DECODER = re.compile(r"(model\.)?decoder\.|proj_out\.")
HUB_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
OPENAI_MODULES = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}
CTRANSLATE2_MODULES = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
CTRANSLATE2_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
State = dict[str, Tensor]


def read_whisper(base: str) -> tuple[dict[str, Any], State]:
    """Sizes and encoder weights (float32) of a base in any form.

    Raises:
        ModelError: if it cannot be found, is no Whisper model, or holds weights that are not known.
    """
    found = _on_disk(base)
    if found.suffix == ".pt":
        return _read_openai(found)
    if _is_ctranslate2(found):
        return whisper_sizes(found / "model.bin"), _read_ctranslate2(found / "model.bin")
    return _transformers_sizes(found), _read_transformers(found)


def read_whisper_sizes(base: str) -> dict[str, Any]:
    """Sizes of a base's encoder under transformers' names; no weights are kept.

    Raises:
        ModelError: if it cannot be found or is no Whisper model.
    """
    found = _on_disk(base, weights=False)
    if found.suffix == ".pt":
        return _openai_sizes(_load_openai(found)["dims"])
    return whisper_sizes(found / "model.bin") if _is_ctranslate2(found) else _transformers_sizes(found)


def locate_whisper(base: str) -> Path | str:
    """The file or folder that a base names, or a hub name; `openai:tiny.en` lies in the openai-whisper package's cache.

    Raises:
        ModelError: if there is no such file, or the package knows no such model.
        MissingPackageError: if `openai:` is used without that package.
    """
    if not base.startswith(OPENAI_PREFIX):
        return find_base(base)
    name = base.removeprefix(OPENAI_PREFIX)
    try:
        import whisper
    except ImportError:
        raise MissingPackageError("openai-whisper", f"base {base!r}", "whisper") from None
    if name not in whisper.available_models():
        raise ModelError(
            f"base {base!r}: openai-whisper knows no such model. It has: {', '.join(whisper.available_models())}."
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
    path = cache / os.path.basename(whisper._MODELS[name])
    if not path.is_file():
        raise ModelError(f"base {base!r}: {path} is not there. Download it once with: whisper.load_model({name!r})")
    return path


def whisper_fingerprint(base: str) -> str:
    """sha256 of the base's files; a hub name stands for itself."""
    found = locate_whisper(base)
    return file_fingerprint(found) if isinstance(found, Path) else found


def _on_disk(base: str, *, weights: bool = True) -> Path:
    found = locate_whisper(base)
    if isinstance(found, Path):
        return found
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(found, allow_patterns=[*HUB_FILES] if weights else ["config.json"]))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base {base!r}: no such file or folder here, and not to be had from the hub "
            f"({str(error).splitlines()[0]}). Name a local folder, a `.pt` file or `package:NAME`."
        ) from error


def _is_ctranslate2(folder: Path) -> bool:
    return (folder / "model.bin").is_file() and not (folder / "model.safetensors").is_file()


def _transformers_sizes(folder: Path) -> dict[str, Any]:
    config = base_sizes(str(folder.resolve())) or {}
    if config.get("model_type") != "whisper":
        raise ModelError(f"{folder}: is a {config.get('model_type', 'nameless')} model, not Whisper.")
    if config.get("activation_function", "gelu") != "gelu":
        raise ModelError(f"{folder}: activation_function {config['activation_function']!r}; Whisper's is 'gelu'.")
    return config


def _read_transformers(folder: Path) -> State:
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    weights: State = {}
    for name in sorted(files):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder}: {name} is not there. Weights are read from safetensors only, not from pickles."
            )
        try:
            with safe_open(folder / name, framework="pt") as file:
                weights |= {key: file.get_tensor(key) for key in file.keys() if not DECODER.match(key)}  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"{folder / name}: cannot be read ({error}). Copy the model again.") from None
    prefix = next((prefix for prefix in ENCODER_PREFIXES if any(key.startswith(prefix) for key in weights)), "")
    return {key.removeprefix(prefix): value.float() for key, value in weights.items() if key.startswith(prefix)}


def _load_openai(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # Whatever the file holds instead, torch has an error of its own for it.
        raise ModelError(f"{path}: is no official Whisper checkpoint ({str(error).splitlines()[0]}).") from error
    if not isinstance(checkpoint, dict) or not {"dims", "model_state_dict"} <= checkpoint.keys():
        raise ModelError(f"{path}: is no official Whisper checkpoint: it lacks 'dims' or 'model_state_dict'.")
    return checkpoint


def _openai_sizes(dims: dict[str, int]) -> dict[str, int]:
    return {
        "d_model": dims["n_audio_state"],
        "num_mel_bins": dims["n_mels"],
        "encoder_layers": dims["n_audio_layer"],
        "encoder_attention_heads": dims["n_audio_head"],
        "encoder_ffn_dim": 4 * dims["n_audio_state"],
        "max_source_positions": dims["n_audio_ctx"],
    }


def _read_openai(path: Path) -> tuple[dict[str, int], State]:
    checkpoint = _load_openai(path)
    state = {
        _openai_name(name.removeprefix("encoder."), path): value.float()
        for name, value in checkpoint["model_state_dict"].items()
        if name.startswith("encoder.")
    }
    return _openai_sizes(checkpoint["dims"]), state


def _openai_name(name: str, path: Path) -> str:
    if name == "positional_embedding":
        return "embed_positions.weight"
    if not name.startswith("blocks."):
        return name.replace("ln_post.", "layer_norm.")
    _, layer, inner = name.split(".", 2)
    module, _, kind = inner.rpartition(".")
    return f"layers.{layer}.{_known(OPENAI_MODULES, module, name, path)}.{kind}"


def _read_ctranslate2(path: Path) -> State:
    variables = read_variables(path)
    state: State = {}
    for full_name, values in variables.items():
        name = full_name.removeprefix("encoder/")
        if name == full_name or values.ndim == 0 or name.endswith("_scale"):
            continue
        tensor = _dequantised(values, variables.get(f"{full_name}_scale"))
        module, _, kind = name.rpartition("/")
        layer, _, inner = module.partition("/")
        kind = "weight" if kind == "encodings" else _known(CTRANSLATE2_KINDS, kind, name, path)
        if inner == "self_attention/linear_0":
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                if (letter, kind) != ("k", "bias"):  # transformers' keys have no bias; CTranslate2 stores zeros.
                    state[f"layers.{layer.removeprefix('layer_')}.self_attn.{letter}_proj.{kind}"] = part.contiguous()
        elif layer.startswith("layer_") and layer != "layer_norm":
            ours = _known(CTRANSLATE2_MODULES, inner, name, path)
            state[f"layers.{layer.removeprefix('layer_')}.{ours}.{kind}"] = tensor
        else:
            state[f"{module.replace('position_encodings', 'embed_positions')}.{kind}"] = tensor
    return state


def _dequantised(values: np.ndarray, scale: np.ndarray | None) -> Tensor:
    tensor = torch.from_numpy(values.astype(np.float32))
    if scale is None:
        return tensor
    return tensor / torch.from_numpy(scale.astype(np.float32)).reshape(-1, *[1] * (values.ndim - 1))


def _known(table: dict[str, str], key: str, name: str, path: Path) -> str:
    if key not in table:
        raise ModelError(f"{path}: holds the encoder weight {name!r}, which no Whisper model has.")
    return table[key]
