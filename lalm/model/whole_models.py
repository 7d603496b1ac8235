"""Audio language models of transformers as a base: their language model and their projector, out of the whole model.

The encoder takes its own part out of the same folder, see `lalm.encoders.pooled_whisper`, `voxtral`, `granite_speech`.

Granite Speech brings an adapter of its own for its language model, which its `generate` switches on where there is
audio and off where there is none. Here it is merged into the weights (`lalm.model.decoder.merge_adapter`), and so it is
always on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AudioFlamingo3ForConditionalGeneration,
    AutoModelForCausalLM,
    GraniteSpeechForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2AudioForConditionalGeneration,
    VoxtralForConditionalGeneration,
)

from lalm.encoders.pretrained import WITHOUT_ADAPTER
from lalm.errors import ModelError
from lalm.resources import find_base

WHOLE_MODELS: dict[str, type[PreTrainedModel]] = {
    "qwen2_audio": Qwen2AudioForConditionalGeneration,
    "audioflamingo3": AudioFlamingo3ForConditionalGeneration,
    "granite_speech": GraniteSpeechForConditionalGeneration,
    "voxtral": VoxtralForConditionalGeneration,
}
"""`model_type` -> class."""
PROJECTOR = re.compile(r"(model\.)?(multi_modal_projector|projector)\.(?P<own>.+)")
PROJECTOR_NAMES = {
    "linear.weight": "linear.weight",
    "linear.bias": "linear.bias",
    "linear_1.weight": "layers.0.weight",
    "linear_1.bias": "layers.0.bias",
    "linear_2.weight": "layers.2.weight",
    "linear_2.bias": "layers.2.bias",
}
"""Their names behind `multi_modal_projector.` -> ours, of `LinearProjector` and `MlpProjector`."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTED = re.compile(r"base_model\.model\.(language_model\.model|model\.language_model)\.")
"""What stands before the name of an adapted layer: transformers 4's order and transformers 5's."""
QUANTISATION = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "quantization_method", "hf_quantizer")
"""What transformers notes on a quantised model, by which PEFT tells its layers."""
QFORMER_NAMES = {"query": "queries", "linear.weight": "to_decoder.weight", "linear.bias": "to_decoder.bias"}
"""Their names behind `projector.` -> ours, of `QFormerProjector`, where they differ."""


def is_whole_model(config: PreTrainedConfig) -> bool:
    """Whether a configuration is that of an audio language model whose parts we take."""
    return config.model_type in WHOLE_MODELS


def text_config_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a whole model's language model; of any other model its own.

    Whether its two tables of words are one is for the whole model to say where that has a head that can be tied.
    """
    if not is_whole_model(config):
        return config
    text_config = config.get_text_config()
    if WHOLE_MODELS[config.model_type]._tied_weights_keys:
        text_config.tie_word_embeddings = config.tie_word_embeddings
    return text_config


def language_model_of(config: PreTrainedConfig, folder: str, options: dict[str, Any]) -> PreTrainedModel:
    """The language model inside a whole model, as transformers' own class for it.

    An adapter that the folder brings is not on it, see `adapter_of`.

    Args:
        options: for `from_pretrained`.

    Raises:
        ModelError: if the folder's names do not fit the class exactly.
    """
    loaded: Any = WHOLE_MODELS[config.model_type].from_pretrained(
        folder,
        output_loading_info=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        **options,
        **WITHOUT_ADAPTER,
    )
    whole, report = loaded
    wrong = {key: sorted(map(str, names))[:5] for key, names in report.items() if names}
    if wrong:
        raise ModelError(f"base: {folder} does not fit {type(whole).__name__}: {wrong}. Copy the model again.")
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(
            text_config_of(config), attn_implementation=options["attn_implementation"]
        )
    language_model.model = whole.model.language_model
    language_model.lm_head = whole.lm_head
    language_model.generation_config = whole.generation_config
    for name in QUANTISATION:
        if hasattr(whole, name):
            setattr(language_model, name, getattr(whole, name))
    return language_model


def adapter_of(config: PreTrainedConfig, folder: str) -> dict[str, Tensor] | None:
    """The LoRA tensors that a whole model brings for its language model; None where it brings none.

    Their names are those that they have inside the language model: `model.layers.0.self_attn.q_proj.lora_A.weight`.

    Raises:
        ModelError: if the model has one by its configuration, and not in its folder, or for other layers too.
    """
    if not getattr(config, "has_lora_adapter", False):
        return None
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (Path(folder) / name).is_file()]
    if missing:
        raise ModelError(
            f"base: {folder} lacks {' and '.join(missing)}: its config.json says has_lora_adapter, and without it the "
            "model does not understand its own audio. Copy the model again."
        )
    try:
        tensors = load_file(Path(folder) / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}/{ADAPTER_WEIGHTS}: cannot be read ({error}). Copy the model again.") from error
    others = sorted(name for name in tensors if not ADAPTED.match(name))
    if others:
        raise ModelError(f"{folder}/{ADAPTER_WEIGHTS}: adapts more than the language model: {others[:5]}")
    return {ADAPTED.sub("model.", name): tensor for name, tensor in tensors.items()}


@torch.no_grad()
def load_projector(projector: nn.Module, base: str) -> None:
    """Puts a whole model's projector into ours.

    Raises:
        ModelError: if the base is no folder of safetensors, or a name or shape is missing, left over or different.
    """
    official = _projector_tensors(base)
    parameters = dict(projector.named_parameters())
    renames = QFORMER_NAMES if "query" in official else PROJECTOR_NAMES
    names = {name: renames.get(name, name) for name in official}
    missing, left_over = sorted(parameters.keys() - names.values()), sorted(names.values() - parameters.keys())
    shapes = [
        f"{name} is {tuple(tensor.shape)}, the recipe's is {tuple(parameters[names[name]].shape)}"
        for name, tensor in official.items()
        if names[name] in parameters and tensor.shape != parameters[names[name]].shape
    ]
    if missing or left_over or shapes:
        raise ModelError(
            f"projector.base {base!r} does not fit the recipe's projector: missing {missing}, left over {left_over}, "
            f"other shape {shapes}"
        )
    for name, tensor in official.items():
        parameters[names[name]].copy_(tensor)


def _projector_tensors(base: str) -> dict[str, Tensor]:
    """Their tensors, by what follows `multi_modal_projector.` or `projector.`."""
    found = find_base(base)
    files = sorted(found.glob("*.safetensors")) if isinstance(found, Path) else []
    if not files:
        raise ModelError(f"projector.base {base!r} is no folder with safetensors here. Download the whole model first.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118 - no mapping
                    if (match := PROJECTOR.fullmatch(name)) is not None:
                        tensors[match["own"]] = content.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: cannot be read ({error}). Copy the model again.") from error
    return tensors
