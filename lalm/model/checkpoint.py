"""A checkpoint: the trained parts alone, the resolved recipe, and the fingerprints of the bases they were trained on.

Loading compares tensor names exactly and refuses a base that differs. Seals are the logits that the model gave for a
fixed prompt when it was saved; `lalm doctor RUN` computes them again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lalm.data.records import Turn
from lalm.encoders import encoder_fingerprint
from lalm.errors import CheckpointError
from lalm.files import replacing, write_json
from lalm.model.build import build_model, default_device
from lalm.model.decoder import language_model_fingerprint
from lalm.model.modeling import PARTS, LalmForConditionalGeneration
from lalm.processing.processor import LalmProcessor
from lalm.recipe.load import load_recipe, save_recipe
from lalm.recipe.schema import Recipe

WEIGHTS, MANIFEST, RECIPE = "trained.safetensors", "manifest.json", "recipe.yaml"
FORMAT = 1
SEAL_QUESTION = "What is heard?"
SEAL_SECONDS = 1.5
SEAL_TOLERANCE = 0.02
"""Largest accepted change of a sealed logit, as a share of the largest; bfloat16 kernels differ by about 0.01."""


def trained_parts(recipe: Recipe) -> list[str]:
    """The parts that a checkpoint holds: projector and adapter, whatever a stage trains, and what the run it starts
    from had trained."""
    trained: set[str] = {*recipe.init_parts}
    trained |= {part for stage in recipe.stages for part, rate in stage.learning_rates.model_dump().items() if rate}
    if recipe.language_model.lora is not None:
        trained.add("lora")
    return [part for part in PARTS if part in trained | {"projector"}]


def trained_state(model: LalmForConditionalGeneration, recipe: Recipe) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds, by parameter name."""
    parts = model.parts()
    return {name: value.detach().cpu().contiguous() for part in trained_parts(recipe) for name, value in parts[part]}


def save_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Writes a safetensors file atomically."""
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def load_weights(model: LalmForConditionalGeneration, path: Path, recipe: Recipe) -> None:
    """Puts a checkpoint's tensors into the model.

    Raises:
        CheckpointError: if the file is missing or damaged, or a name or shape is missing, left over or different.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Take an earlier checkpoint.") from error
    parameters = {name: value for part in trained_parts(recipe) for name, value in model.parts()[part]}
    missing, left_over = sorted(parameters.keys() - state.keys()), sorted(state.keys() - parameters.keys())
    wrong = [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(parameters[name].shape)}"
        for name in sorted(parameters.keys() & state.keys())
        if state[name].shape != parameters[name].shape
    ]
    if missing or left_over or wrong:
        raise CheckpointError(
            f"{path} does not fit the recipe beside it: missing {missing[:5]}, left over {left_over[:5]}, "
            f"other shape {wrong[:5]}. Was the recipe edited after training?"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def save_trained(
    folder: Path, model: LalmForConditionalGeneration, processor: LalmProcessor, recipe: Recipe, *, stage: str
) -> None:
    """Writes a run folder that `load_run`, `from_pretrained` and the Auto classes load."""
    folder.mkdir(parents=True, exist_ok=True)
    state = trained_state(model, recipe)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_recipe(recipe, folder / RECIPE)
    save_weights(folder / WEIGHTS, state)
    manifest = {
        "format": FORMAT,
        "stage": stage,
        "bases": base_fingerprints(recipe),
        "tensors": {
            name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in state.items()
        },
        "seals": compute_seals(model, processor),
    }
    write_json(folder / MANIFEST, manifest)


def base_fingerprints(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Name and fingerprint of each base model of a recipe."""
    bases = {
        f"encoders[{i}]": {"base": section.base, "fingerprint": encoder_fingerprint(section)}
        for i, section in enumerate(recipe.encoders)
    }
    base = recipe.language_model.base
    bases["language_model"] = {"base": base, "fingerprint": language_model_fingerprint(base)}
    return bases


def is_run_folder(path: str | Path) -> bool:
    """Whether a folder holds trained parts on named bases, as `save_trained` writes them."""
    return (Path(path) / MANIFEST).is_file() and (Path(path) / WEIGHTS).is_file()


def load_run(
    folder: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[LalmForConditionalGeneration, LalmProcessor, Recipe]:
    """A trained model, ready to answer, its processor and its recipe.

    Args:
        dtype: how the language model is held; float32 by default on a CPU, where single-token decoding is memory-bound
            and bfloat16 kernels are slow, else the recipe's choice.

    Raises:
        CheckpointError: if the folder is no run, is incomplete, or a base differs from the one it was trained on.
    """
    folder = Path(folder)
    if not is_run_folder(folder):
        raise CheckpointError(
            f"{folder}: no trained model here (needs {WEIGHTS} and {MANIFEST}). Train one with: lalm train RECIPE"
        )
    manifest = read_manifest(folder)
    recipe = load_recipe(folder / RECIPE)
    for name, now in base_fingerprints(recipe).items():
        then = manifest["bases"].get(name, {})
        if now["fingerprint"] != then.get("fingerprint") and now["base"] != "random":
            raise CheckpointError(
                f"{folder}: {name} ({now['base']}) is not the model it was trained on: fingerprint "
                f"{now['fingerprint'][:12]}, trained on {str(then.get('fingerprint'))[:12]}. Restore that base model."
            )
    device = torch.device(device) if device else default_device()
    if dtype is None and device.type == "cpu" and recipe.language_model.quantisation == "none":
        dtype = torch.float32
    model, processor = build_model(recipe, dtype=dtype, device=device)
    load_weights(model, folder / WEIGHTS, recipe)
    model.set_lora_scale(recipe.generation.lora_scale)
    return model.eval(), processor, recipe


def load_model(
    folder: Path, *, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None
) -> LalmForConditionalGeneration:
    """The model alone, for `from_pretrained`."""
    if isinstance(dtype, str):
        dtype = None if dtype == "auto" else getattr(torch, dtype)
    return load_run(folder, device=None if device == "auto" else device, dtype=dtype)[0]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        CheckpointError: if it cannot be read, or another format wrote it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: cannot be read ({error})") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder / MANIFEST}: format {manifest.get('format')!r}; this lalm reads {FORMAT}")
    return manifest


@torch.no_grad()
def compute_seals(model: LalmForConditionalGeneration, processor: LalmProcessor) -> dict[str, Any]:
    """The five largest logits after a fixed question about a fixed clip."""
    device = model.device
    features = {
        name: [item.to(device) for item in value] if isinstance(value, list) else value.to(device)
        for name, value in processor.audio_inputs([seal_waveform(processor.sampling_rate)]).items()
    }
    was_training = model.training
    model.eval()
    states, num_steps = model.encode_audio(**features)
    counts = [model.config.position_rule().count(int(num_steps[0]))]
    question = (Turn(role="user", content=SEAL_QUESTION),)
    encoded = processor.encode_turns(question, counts, add_generation_prompt=True)
    asked = {name: value.to(device) for name, value in processor.question_inputs(encoded.questions).items()}
    ids = torch.tensor([[*encoded.input_ids]], device=device)
    heard = {"audio_states": states, "audio_state_lengths": num_steps, **asked}
    logits = model(input_ids=ids, use_cache=False, **heard).logits
    model.train(was_training)
    top = logits[0, -1].float().topk(5)
    dtype = str(next(model.language_model.parameters()).dtype).removeprefix("torch.")
    return {"ids": top.indices.tolist(), "logits": top.values.tolist(), "dtype": dtype, "device": device.type}


def seal_waveform(sample_rate_hz: int) -> np.ndarray:
    """A rising tone in noise, the same on every machine."""
    time = np.arange(int(SEAL_SECONDS * sample_rate_hz)) / sample_rate_hz
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time) + 0.01 * noise).astype(np.float32)


def verify_seals(folder: Path) -> list[tuple[str, bool, str]]:
    """(what, holds, detail) for each base's fingerprint and for the sealed logits of a run."""
    manifest = read_manifest(Path(folder))
    recipe = load_recipe(Path(folder) / RECIPE)
    checks = []
    for name, now in base_fingerprints(recipe).items():
        then = manifest["bases"].get(name, {}).get("fingerprint")
        checks.append((f"{name} {now['base']}", now["fingerprint"] == then, f"fingerprint {now['fingerprint'][:12]}"))
    if not all(holds for _, holds, _ in checks):
        return checks
    seal = manifest["seals"]
    model, processor, _ = load_run(folder, dtype=getattr(torch, seal["dtype"]))
    now = compute_seals(model, processor)
    change = max(abs(a - b) for a, b in zip(now["logits"], seal["logits"], strict=True))
    share = change / max(abs(value) for value in seal["logits"])
    checks.append(("golden logits", share <= SEAL_TOLERANCE, f"largest change {100 * share:.2f} %"))
    return checks
