"""The language model: found by name, held in the right precision, given its adapter. Beside `narrow_lora` it alone
touches PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from lalm.errors import MissingPackageError, ModelError
from lalm.model.attention_mask import MASKED_LAYERS
from lalm.model.fused_kernels import fuse_kernels
from lalm.model.gguf_base import converted, gguf_file, is_converted
from lalm.model.grouped_attention import attend_in_groups, is_fastest_here, why_not_grouped
from lalm.model.lean_norm import lean_norms
from lalm.model.narrow_lora import narrow_adapters
from lalm.model.tekken import is_tekken_alone, read_tekken
from lalm.model.whole_models import adapter_of, is_whole_model, language_model_of, text_config_of
from lalm.recipe.schema import LanguageModelSection, LoraSection
from lalm.resources import file_fingerprint, find_base

ALIBI_TYPES = ("bloom", "mpt")
"""Families whose attention is biased by distance in the row; Falcon's configuration says so itself."""

RANDOM_SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
"""Sizes of a `base: random` model, for tests."""

LORA_GROUPS = {
    "qv": ("q_proj", "v_proj", "query", "value", "q", "v", "query_key_value", "qkv_proj", "Wqkv", "c_attn"),
    "attention": (
        *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "query", "key", "value", "q", "k", "v", "o", "dense"),
        *("query_key_value", "qkv_proj", "Wqkv", "c_attn", "c_proj"),
    ),
}
"""Names that the families of transformers give to the same matrices. Where one matrix makes query, key and value
(GPT-2, GPT-NeoX, Falcon, Phi-3), `qv` adapts all three."""

ATTENTION_MODULES = ("attn", "self_attn", "attention", "self_attention", "mixer", "SelfAttention", "EncDecAttention")
"""Names of the modules that hold them; GPT-2 calls a matrix of its feed-forward `c_proj` too."""


def load_language_model(section: LanguageModelSection, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The base with its published weights, in eval mode, frozen, without adapter.

    `dtype` overrides the section's.

    Raises:
        ModelError: if the base cannot be found, or is no language model.
    """
    dtype = dtype or choose_dtype(section.dtype)
    if section.base == "random":
        return random_language_model(section).to(dtype).eval().requires_grad_(False)
    folder = language_model_folder(section.base)
    options = {"dtype": dtype, "trust_remote_code": False, "attn_implementation": choose_attention(section.attention)}
    if section.quantisation != "none":
        options["quantization_config"] = _quantisation(section.quantisation, dtype)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if is_whole_model(config):
            model = language_model_of(config, folder, options)
            if (adapter := adapter_of(config, folder)) is not None:
                merge_adapter(model, folder, adapter)
        else:
            model = _auto_class(config).from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"language_model.base {section.base!r} cannot be loaded: {error}") from error
    _make_fast(model, section)
    return model.eval().requires_grad_(False)


def merge_adapter(model: PreTrainedModel, folder: str, tensors: dict[str, Tensor]) -> None:
    """Adds an adapter that a base brings to the weights, in place; nothing is left of it but its effect.

    Args:
        folder: where its configuration is.
        tensors: see `lalm.model.whole_models.adapter_of`.

    Raises:
        ModelError: if its names or shapes do not fit the model exactly.
    """
    inject_adapter_in_model(LoraConfig.from_pretrained(folder), model)
    own = {name.replace(".default.", "."): value for name, value in model.named_parameters() if ".lora_" in name}
    wrong = sorted(own.keys() ^ tensors.keys()) + sorted(
        name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
    )
    if wrong:
        raise ModelError(f"{folder}: its adapter does not fit its language model: {wrong[:5]}. Copy the model again.")
    for name, tensor in tensors.items():
        own[name].data.copy_(tensor)
    for name, module in [*model.named_modules()]:
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())


def empty_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of a configuration with random weights."""
    return _auto_class(config).from_config(config)


def _auto_class(config: PreTrainedConfig) -> type:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def random_language_model(section: LanguageModelSection) -> PreTrainedModel:
    """A model of `random_family` and `random_sizes` with random weights, made on the GPU where there is one: billions
    of random numbers take a CPU minutes."""
    config = random_config(section)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = _auto_class(config).from_config(config, attn_implementation=choose_attention(section.attention))
    _make_fast(model, section)
    return model


def random_config(section: LanguageModelSection):
    """The configuration of a `base: random` model."""
    sizes = {**RANDOM_SIZES, "tie_word_embeddings": True, **section.random_sizes}
    try:
        return AutoConfig.for_model(section.random_family, **sizes)
    except ValueError as error:
        raise ModelError(
            f"language_model.random_family {section.random_family!r} is no family of transformers' "
            "(llama, qwen2, gpt2, opt, t5, ...)"
        ) from error


def load_config(section: LanguageModelSection):
    """The base's configuration, without its weights."""
    if section.base == "random":
        return random_config(section)
    try:
        config = AutoConfig.from_pretrained(language_model_folder(section.base), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"language_model.base {section.base!r} cannot be read: {error}") from error
    return text_config_of(config)


def load_tokenizer(section: LanguageModelSection) -> PreTrainedTokenizerBase:
    """The base's own tokenizer; a byte-level one for `base: random`."""
    if section.base == "random":
        return byte_tokenizer()
    if is_tekken_alone(folder := language_model_folder(section.base)):
        return read_tekken(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"language_model.base {section.base!r} has no usable tokenizer: {error}") from error


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """256 bytes and the special tokens of ChatML: enough for tests, and made without any file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )


def language_model_folder(base: str) -> str:
    """A folder, or a hub name, that transformers loads; a GGUF file is converted once into the cache."""
    found = find_base(base)
    if not isinstance(found, Path):
        return found
    gguf = gguf_file(found)
    return str(found if gguf is None else converted(gguf))


def awaits_conversion(base: str) -> bool:
    """Whether a base of this machine is a GGUF file that `language_model_folder` has yet to convert."""
    found = find_base(base)
    gguf = gguf_file(found) if isinstance(found, Path) else None
    return gguf is not None and not is_converted(gguf)


def language_model_fingerprint(base: str) -> str:
    """sha256 of the base's files; a hub name stands for itself."""
    folder = "random" if base == "random" else language_model_folder(base)
    return file_fingerprint(Path(folder)) if Path(folder).exists() else folder


def choose_dtype(name: str) -> torch.dtype:
    """`auto` is bfloat16 where the machine multiplies in it, else float32.

    Raises:
        ModelError: for float16 without a GPU: it overflows and is slow on a CPU.
    """
    if name == "float16" and not torch.cuda.is_available():
        raise ModelError("dtype: float16 needs a GPU. Use 'auto', 'bfloat16' or 'float32' on a CPU.")
    if name != "auto":
        return getattr(torch, name)
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def choose_attention(name: str) -> str:
    """transformers' name of the attention kernel that a model is loaded with, see `_make_fast`."""
    if name not in ("auto", "grouped"):
        return name
    return "sdpa" if torch.cuda.is_available() else "eager"


def _make_fast(model: PreTrainedModel, section: LanguageModelSection) -> None:
    """Puts grouped attention on a loaded model where the recipe asks for it, or leaves the choice and the model's
    family is one that it computes exactly; and fused kernels, or lean norms on a CPU."""
    is_best = section.attention == "auto" and is_fastest_here() and why_not_grouped(model) is None
    if section.attention == "grouped" or is_best:
        attend_in_groups(model)
        if not torch.cuda.is_available():
            lean_norms(model)
    fuse_kernels(model, section.kernels)


def _quantisation(name: str, dtype: torch.dtype):
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingPackageError("bitsandbytes", f"language_model.quantisation: {name}", "quantise") from None
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def add_lora(model: PreTrainedModel, section: LoraSection) -> None:
    """Puts a trainable adapter on the model, in place, with float32 weights.

    Raises:
        ModelError: if a target names no linear layer of the model; the names that exist are listed.
    """
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=resolve_targets(model, section.targets),
        use_dora=section.variant == "dora",
        use_rslora=section.variant == "rslora",
        bias="none",
    )
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
    narrow_adapters(model)


def resolve_targets(model: PreTrainedModel, targets: tuple[str, ...] | str) -> list[str]:
    """Names of the model's linear layers that a recipe's targets mean."""
    existing = _linear_names(model)
    if isinstance(targets, str):
        chosen, missing = _resolve_group(model, targets), set()
    else:
        paths = [f".{path}" for path, _ in _linear_layers(model)]
        missing = {name for name in targets if not any(path.endswith(f".{name}") for path in paths)}
        chosen = sorted(set(targets))
    if missing or not chosen:
        raise ModelError(
            f"language_model.lora.targets: {sorted(missing) or targets} names no linear layer of "
            f"{type(model).__name__}. It has: {', '.join(sorted(existing))}."
        )
    return chosen


def _resolve_group(model: PreTrainedModel, group: str) -> list[str]:
    """The group's linear layers inside the decoder's layers, by last name; with the module before it where the last
    name alone means others too."""
    paths = [name.split(".") for name, _ in _linear_layers(decoder_layers(model))]
    if group == "attention_mlp":
        return sorted({path[-1] for path in paths})
    wanted = LORA_GROUPS[group]
    inside = [path for path in paths if path[-1] in wanted and path[-2] in ATTENTION_MODULES]
    others = {path[-1] for path in paths if path not in inside}
    return sorted({".".join(path[-2:]) if path[-1] in others else path[-1] for path in inside})


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's layers, first to last.

    Raises:
        ModelError: if no list of modules is as long as the configuration says.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"{type(model).__name__} has no list of {count} layers that cross-attention could enter.")


def _linear_names(model: PreTrainedModel) -> set[str]:
    head = model.get_output_embeddings()
    return {name.rpartition(".")[2] for name, module in _linear_layers(model) if module is not head}


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D)))


def check_packing(config: PreTrainedConfig, packing: str) -> None:
    """Refuses rows of several conversations for a model that would not keep them apart.

    Raises:
        ModelError: if the model takes distances from places in the row (ALiBi), whatever the positions say, or has an
            encoder.
    """
    if packing != "none" and config.is_encoder_decoder:
        raise ModelError(
            f"data.packing: {packing} is for decoders; '{config.model_type}' has an encoder, which reads one "
            "conversation at a time. Use packing: none."
        )
    text_config = config.get_text_config()
    types = set(getattr(text_config, "layer_types", None) or ())
    if packing != "none" and types - MASKED_LAYERS:
        raise ModelError(
            f"data.packing: {packing} is not exact for '{text_config.model_type}': its layers of "
            f"{', '.join(sorted(types - MASKED_LAYERS))} follow no attention mask. Use packing: none."
        )
    if packing != "none" and (getattr(text_config, "alibi", False) or text_config.model_type in ALIBI_TYPES):
        raise ModelError(
            f"data.packing: {packing} is not exact for '{text_config.model_type}': its attention counts distances in "
            "the row (ALiBi), so conversations in one row would move one another. Use packing: none."
        )


def lora_layers(model: nn.Module) -> Iterator[LoraLayer]:
    """Every layer that carries an adapter."""
    return (module for module in model.modules() if isinstance(module, LoraLayer))
