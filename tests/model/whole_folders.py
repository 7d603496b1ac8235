"""Tiny whole audio language models with random weights, saved as transformers saves them, with their tokenizers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from lalm.model.decoder import byte_tokenizer

MEL_BINS = 128
TEXT: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
AUDIO = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "num_mel_bins": MEL_BINS}
GRANITE_TEXT = {
    **TEXT,
    "model_type": "granite",
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 8.0,
}
GRANITE_ENCODER = {
    "input_dim": 160,
    "num_layers": 4,
    "hidden_dim": 32,
    "feedforward_mult": 2,
    "num_heads": 4,
    "output_dim": 12,
    "context_size": 40,
    "max_pos_emb": 50,
    "conv_kernel_size": 7,
}
"""Blocks of 0.8 s."""
GRANITE_PROJECTOR = {
    "model_type": "blip_2_qformer",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "cross_attention_frequency": 1,
    "encoder_hidden_size": 32,
}
VOXTRAL_AUDIO = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_mel_bins": MEL_BINS,
    "max_source_positions": 100,
}
"""Chunks of 2 s, of 25 positions."""
TEKKEN_SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    11: "<pad>",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
}
"""Of Voxtral's special tokens those that matter here, at their own ids."""
TEKKEN_WORDS = ("he", "th", "in", "the", "ea", "ing", " the", "at", "er", " is", "hat", "What", "aa", "aaa", " heard")
TEKKEN_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+"
ADAPTER_RANK, ADAPTER_ALPHA = 3, 6
GAIN = {1: 0.05, 2: 0.15}
"""Deviation of the random weights by their dimensions: so large that the audio is heard in the logits."""


def save_tiny(kind: str, folder: Path, *, has_adapter: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Writes the folder, and gives the model in it (without adapter) and the tokenizer that goes with it."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    tokens = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<sound>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *tokens]})
    if kind == "qwen2_audio":
        audio = {**AUDIO, "model_type": "qwen2_audio_encoder", "d_model": 32}
        ids = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
        config = Qwen2AudioConfig(audio_config=audio, text_config=TEXT, audio_token_index=ids)
        model = Qwen2AudioForConditionalGeneration(config)
    elif kind == "audioflamingo3":
        audio = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "hidden_size": 32}
        audio |= {"num_mel_bins": MEL_BINS, "model_type": "audioflamingo3_encoder"}
        ids = tokenizer.convert_tokens_to_ids("<sound>")
        config = AudioFlamingo3Config(audio_config=audio, text_config=TEXT, audio_token_id=ids)
        model = AudioFlamingo3ForConditionalGeneration(config)
    elif kind == "granite_speech":
        tokenizer = granite_tokenizer()
        config = GraniteSpeechConfig(
            encoder_config=GRANITE_ENCODER,
            text_config=GRANITE_TEXT,
            projector_config=GRANITE_PROJECTOR,
            audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
            has_lora_adapter=has_adapter,
        )
        model = GraniteSpeechForConditionalGeneration(config)
    else:
        text = {**TEXT, "model_type": "llama", "head_dim": 8}
        model = VoxtralForConditionalGeneration(
            VoxtralConfig(audio_config=VOXTRAL_AUDIO, text_config=text, audio_token_id=24)
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith("bias"):
                parameter.normal_(std=GAIN.get(parameter.dim(), GAIN[2]))
        for name, statistic in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.uniform_(0.5, 1.5)
    model.eval().save_pretrained(folder)
    if has_adapter:
        save_adapter(folder)
    if kind != "voxtral":
        tokenizer.save_pretrained(folder)
        return model, tokenizer
    save_tekken(folder)
    from lalm.model.tekken import read_tekken

    return model, read_tekken(str(folder))


def granite_tokenizer() -> PreTrainedTokenizerBase:
    """Bytes, and Granite's special tokens, the audio token among them."""
    tokenizer = byte_tokenizer()
    special = ["<|start_of_role|>", "<|end_of_role|>", "<|audio|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special, "eos_token": "<|end_of_text|>"})
    return tokenizer


def save_tekken(folder: Path) -> dict[str, Any]:
    """A tekken.json of bytes and some words, in the layout of Mistral's."""
    count = 30
    special = [TEKKEN_SPECIAL.get(rank, f"<SPECIAL_{rank}>") for rank in range(count)]
    tokens = [*(bytes([number]) for number in range(256)), *(word.encode() for word in _words())]
    tekken = {
        "config": {
            "pattern": TEKKEN_PATTERN,
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": count + len(tokens),
            "default_num_special_tokens": count,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(special)
        ],
    }
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    return tekken


def _words() -> list[str]:
    """The words, and what stands between bytes and them, shortest first: as a vocabulary of byte pairs is learned."""
    parts = {word[:end] for word in TEKKEN_WORDS for end in range(2, len(word) + 1)}
    return sorted(parts, key=lambda part: (len(part), part))


def save_adapter(folder: Path, *, old_names: bool = True) -> None:
    """A random adapter for query and value beside a saved Granite Speech, in PEFT's layout."""
    order = "language_model.model" if old_names else "model.language_model"
    width, value_width = TEXT["hidden_size"], TEXT["hidden_size"] // 2
    tensors = {}
    for layer in range(TEXT["num_hidden_layers"]):
        for target, outputs in (("q_proj", width), ("v_proj", value_width)):
            name = f"base_model.model.{order}.layers.{layer}.self_attn.{target}"
            tensors[f"{name}.lora_A.weight"] = 0.3 * torch.randn(ADAPTER_RANK, width)
            tensors[f"{name}.lora_B.weight"] = 0.3 * torch.randn(outputs, ADAPTER_RANK)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": ADAPTER_RANK,
        "lora_alpha": ADAPTER_ALPHA,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "base_model_name_or_path": "somewhere/else",
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


@torch.no_grad()
def switch_adapter_on(model: PreTrainedModel, folder: Path) -> None:
    """Adds the folder's adapter to the weights of transformers' own model: W + alpha / rank * B A."""
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in [name for name in tensors if ".lora_A." in name]:
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        layer = model.get_submodule(path.replace("language_model.model.", "model.language_model."))
        up = tensors[name.replace("lora_A", "lora_B")]
        layer.weight += ADAPTER_ALPHA / ADAPTER_RANK * up @ tensors[name]
