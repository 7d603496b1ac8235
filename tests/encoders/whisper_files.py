"""A tiny random Whisper of openai-whisper's own code, written in each form that people have Whisper in.

The files are written from that model's weights by hand, not through the loaders that they test.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SIZES = {"n_mels": 80, "n_audio_ctx": 50, "n_audio_state": 48, "n_audio_head": 3, "n_audio_layer": 2}
"""One second at most, so that its full padding costs nothing; three heads of 16, so that heads cannot be guessed."""
Change = Callable[[dict], None]
DTYPE_CODES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


def tiny_whisper():
    """openai-whisper's model with random weights; every encoder weight is away from its trivial start value."""
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(3)
    dims = ModelDimensions(
        **SIZES, n_vocab=16, n_text_ctx=8, n_text_state=SIZES["n_audio_state"], n_text_head=3, n_text_layer=1
    )
    model = Whisper(dims).eval()
    for parameter in model.encoder.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    # Both halves of the position table differ from transformers' own, so that a table left unread is seen.
    model.encoder.positional_embedding += 0.1 * torch.randn_like(model.encoder.positional_embedding)
    return model


def unchanged(weights: dict) -> None:
    """What the writers do to the weights by name before writing them, unless told otherwise."""


def write_openai(path: Path, model, *, change: Change = unchanged) -> Path:
    """The official `.pt`."""
    state = dict(model.state_dict())
    change(state)
    torch.save({"dims": vars(model.dims), "model_state_dict": state}, path)
    return path


def write_transformers(
    folder: Path, model, *, prefix: str = "model.encoder.", shards: int = 1, change: Change = unchanged
) -> Path:
    """A transformers folder; `prefix` as in a whole Whisper, a base model, or (empty) the encoder alone."""
    folder.mkdir(parents=True)
    dims = model.dims
    config = {
        "model_type": "whisper",
        "d_model": dims.n_audio_state,
        "num_mel_bins": dims.n_mels,
        "encoder_layers": dims.n_audio_layer,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "max_source_positions": dims.n_audio_ctx,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {prefix + name: value for name, value in transformers_state(model).items()}
    if prefix:
        tensors[prefix.replace("encoder", "decoder") + "embed_tokens.weight"] = torch.ones(4, 2)
        tensors["proj_out.weight"] = torch.ones(4, 2)
    change(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


def transformers_state(model) -> dict[str, torch.Tensor]:
    """The encoder's weights under transformers' names."""
    encoder = model.encoder
    state = {"embed_positions.weight": encoder.positional_embedding}

    def take(ours: str, module) -> None:
        state.update({f"{ours}.{name}": value.data for name, value in module.named_parameters()})

    take("conv1", encoder.conv1)
    take("conv2", encoder.conv2)
    take("layer_norm", encoder.ln_post)
    for i, block in enumerate(encoder.blocks):
        attention = f"layers.{i}.self_attn"
        for letter, linear in (("q", block.attn.query), ("k", block.attn.key), ("v", block.attn.value)):
            take(f"{attention}.{letter}_proj", linear)
        take(f"{attention}.out_proj", block.attn.out)
        take(f"{attention}_layer_norm", block.attn_ln)
        take(f"layers.{i}.fc1", block.mlp[0])
        take(f"layers.{i}.fc2", block.mlp[2])
        take(f"layers.{i}.final_layer_norm", block.mlp_ln)
    return {name: value.detach().clone() for name, value in state.items()}


def write_ctranslate2(folder: Path, model, *, dtype: str = "float32", change: Change = unchanged) -> Path:
    """A faster-whisper folder; with int8, weights are stored as `round(w * scale)`, one scale a row."""
    folder.mkdir(parents=True)
    variables = {"encoder/num_heads": np.int16(model.dims.n_audio_head), "decoder/num_heads": np.int16(3)}
    for name, value in ctranslate2_variables(model).items():
        if dtype == "int8" and value.ndim > 1 and "encodings" not in name:
            scale = 127 / np.abs(value.reshape(len(value), -1)).max(axis=1)
            variables[name] = np.rint(value * scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
            variables[f"{name}_scale"] = scale.astype(np.float32)
        else:
            variables[name] = value.astype("float32" if dtype == "int8" else dtype)
    change(variables)
    write_model_bin(folder / "model.bin", variables)
    return folder


def ctranslate2_variables(model) -> dict[str, np.ndarray]:
    """Every encoder weight under CTranslate2's names, float32."""
    encoder, found = model.encoder, {}

    def take(name: str, module, weight: str = "weight", bias: str = "bias") -> None:
        found[f"encoder/{name}/{weight}"] = module.weight.data.numpy()
        found[f"encoder/{name}/{bias}"] = module.bias.data.numpy()

    take("conv1", encoder.conv1)
    take("conv2", encoder.conv2)
    take("layer_norm", encoder.ln_post, "gamma", "beta")
    found["encoder/position_encodings/encodings"] = encoder.positional_embedding.numpy()
    for i, block in enumerate(encoder.blocks):
        at, attention = f"layer_{i}", block.attn
        stacked = [attention.query.weight, attention.key.weight, attention.value.weight]
        biases = [attention.query.bias, torch.zeros_like(attention.query.bias), attention.value.bias]
        found[f"encoder/{at}/self_attention/linear_0/weight"] = torch.cat(stacked).detach().numpy()
        found[f"encoder/{at}/self_attention/linear_0/bias"] = torch.cat(biases).detach().numpy()
        take(f"{at}/self_attention/linear_1", attention.out)
        take(f"{at}/self_attention/layer_norm", block.attn_ln, "gamma", "beta")
        take(f"{at}/ffn/linear_0", block.mlp[0])
        take(f"{at}/ffn/linear_1", block.mlp[2])
        take(f"{at}/ffn/layer_norm", block.mlp_ln, "gamma", "beta")
    return found


def write_model_bin(path: Path, variables: dict[str, np.ndarray], *, version: int = 6) -> None:
    """CTranslate2's layout; see `lalm.ctranslate2`."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        value = np.asarray(value)
        data += text(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", DTYPE_CODES[str(value.dtype)], value.nbytes) + value.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))
