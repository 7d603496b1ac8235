"""Sizes of the base models that the shipped recipes name, so that a recipe is counted without network and weights.

The names of the sizes are transformers' own. Where a base is at hand, its own files are read instead. Sources: the
config.json of each model on the hub; for BEATs the `cfg` of the published checkpoint. Imports no torch.
"""

from __future__ import annotations

from typing import Any

Sizes = dict[str, Any]


def _whisper(width: int, layers: int, heads: int, num_mel_bins: int = 80) -> Sizes:
    return {
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "num_mel_bins": num_mel_bins,
        "max_source_positions": 1500,
    }


def _granite_speech_encoder() -> Sizes:
    return {
        "input_dim": 160,
        "num_layers": 16,
        "hidden_dim": 1024,
        "feedforward_mult": 4,
        "num_heads": 8,
        "dim_head": 128,
        "output_dim": 256,
        "context_size": 200,
        "max_pos_emb": 512,
        "conv_kernel_size": 15,
        "conv_expansion_factor": 2,
    }


def _speech(width: int, layers: int, heads: int, **sizes: Any) -> Sizes:
    """wav2vec 2.0 and its relatives; nothing is masked, as in `lalm.encoders.speech_transformers`."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        **sizes,
    }


KNOWN_ENCODERS: dict[str, Sizes] = {
    "package:whisper-base": _whisper(512, 6, 8),
    "package:whisper-tiny.en": _whisper(384, 4, 6),
    "openai/whisper-small": _whisper(768, 12, 12),
    "openai/whisper-medium": _whisper(1024, 24, 16),
    "openai/whisper-large": _whisper(1280, 32, 20),
    "openai/whisper-large-v2": _whisper(1280, 32, 20),
    "openai/whisper-large-v3": _whisper(1280, 32, 20, num_mel_bins=128),
    "Qwen/Qwen2-Audio-7B": _whisper(1280, 32, 20, num_mel_bins=128),
    "Qwen/Qwen2-Audio-7B-Instruct": _whisper(1280, 32, 20, num_mel_bins=128),
    "nvidia/audio-flamingo-3-hf": _whisper(1280, 32, 20, num_mel_bins=128),
    "mistralai/Voxtral-Mini-3B-2507": _whisper(1280, 32, 20, num_mel_bins=128),
    "mistralai/Voxtral-Small-24B-2507": _whisper(1280, 32, 20, num_mel_bins=128),
    "ibm-granite/granite-speech-3.3-2b": _granite_speech_encoder(),
    "ibm-granite/granite-speech-3.3-8b": _granite_speech_encoder(),
    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt": {
        "input_patch_size": 16,
        "max_distance": 800,
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "deep_norm": True,
        "finetuned_model": True,
        "predictor_class": 527,
    },
    # Patches of 16 x 16 that do not overlap: 64 columns of 8.
    "MIT/ast-finetuned-audioset-16-16-0.442": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "frequency_stride": 16,
        "time_stride": 16,
        "num_mel_bins": 128,
        "max_length": 1024,
    },
    # CAV-MAE-Scale+ fine-tuned on AudioSet-2M, sound alone.
    "as_46.6.pth": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_length": 1024,
    },
    "laion/clap-htsat-unfused": {
        "hidden_size": 768,
        "patch_embeds_hidden_size": 96,
        "depths": (2, 2, 6, 2),
        "num_attention_heads": (4, 8, 16, 32),
        "num_mel_bins": 64,
        "spec_size": 256,
        "enable_fusion": False,
    },
    "microsoft/wavlm-large": _speech(1024, 24, 16, feat_extract_norm="layer", do_stable_layer_norm=True),
    "m-a-p/MERT-v1-330M": _speech(1024, 24, 16, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
    "voidful/mhubert-base": _speech(768, 12, 12),
    "facebook/w2v-bert-2.0": {
        **_speech(1024, 24, 16),
        "conv_depthwise_kernel_size": 31,
        "feature_projection_input_dim": 160,
        "add_adapter": False,
    },
}
"""Encoder base -> the sizes of its configuration that differ from its class's defaults, or matter here."""

KNOWN_FRONT_ENDS: dict[str, Sizes] = {
    "laion/clap-htsat-unfused": {"mel_scale": "slaney"},
    "microsoft/wavlm-large": {"sample_rate_hz": 16000, "is_normalised": True},
    "m-a-p/MERT-v1-330M": {"sample_rate_hz": 24000, "is_normalised": True},
    "voidful/mhubert-base": {"sample_rate_hz": 16000, "is_normalised": False},
    "facebook/w2v-bert-2.0": {"num_mel_bins": 80, "stacked_frames": 2},
}
"""Encoder base -> what its preprocessor_config.json says of its front end."""


def _llama(
    width: int, layers: int, heads: int, intermediate: int, *, kv_heads: int | None = None, context: int = 2048
) -> Sizes:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or heads,
        "intermediate_size": intermediate,
        "vocab_size": 32000,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }


def _qwen2(width: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocab: int, *, tied: bool) -> Sizes:
    return {
        "model_type": "qwen2",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": tied,
    }


def _granite(width: int, intermediate: int, attention_multiplier: float, logits_scaling: float) -> Sizes:
    """The language models of Granite Speech 3.3: Granite 3.3 with one more word, the audio token."""
    return {
        "model_type": "granite",
        "hidden_size": width,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": intermediate,
        "vocab_size": 49160,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e7,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": attention_multiplier,
        "logits_scaling": logits_scaling,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }


def _voxtral(width: int, layers: int, intermediate: int) -> Sizes:
    """The language models of Voxtral: Mistral's, in the configuration of Llama, with heads of 128."""
    return {
        **_llama(width, layers, 32, intermediate, kv_heads=8, context=131072),
        "head_dim": 128,
        "vocab_size": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e8,
    }


KNOWN_LANGUAGE_MODELS: dict[str, Sizes] = {
    "huggyllama/llama-7b": _llama(4096, 32, 32, 11008),
    "lmsys/vicuna-7b-v1.1": _llama(4096, 32, 32, 11008),
    "lmsys/vicuna-7b-v1.5": _llama(4096, 32, 32, 11008, context=4096),
    "lmsys/vicuna-13b-v1.1": _llama(5120, 40, 40, 13824),
    "meta-llama/Llama-2-7b-hf": _llama(4096, 32, 32, 11008, context=4096),
    "meta-llama/Llama-2-7b-chat-hf": _llama(4096, 32, 32, 11008, context=4096),
    "TinyLlama/TinyLlama_v1.1": _llama(2048, 22, 32, 5632, kv_heads=4),
    "package:smollm2-135m-instruct": {
        **_llama(576, 30, 9, 1536, kv_heads=3, context=8192),
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "HuggingFaceTB/SmolLM2-360M-Instruct": {
        **_llama(960, 32, 15, 2560, kv_heads=5, context=8192),
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen1.5-7B": _qwen2(4096, 32, 32, 32, 11008, 151936, tied=False),
    # The language models inside whole ones; Audio Flamingo 3's vocabulary reaches just over its audio token's 151669.
    "Qwen/Qwen2-Audio-7B": _qwen2(4096, 32, 32, 32, 11008, 156032, tied=False),
    "Qwen/Qwen2-Audio-7B-Instruct": _qwen2(4096, 32, 32, 32, 11008, 156032, tied=False),
    "nvidia/audio-flamingo-3-hf": _qwen2(3584, 28, 28, 4, 18944, 151672, tied=False),
    "ibm-granite/granite-speech-3.3-2b": _granite(2048, 8192, 0.015625, 8.0),
    "ibm-granite/granite-speech-3.3-8b": _granite(4096, 12800, 0.0078125, 16.0),
    "mistralai/Voxtral-Mini-3B-2507": _voxtral(3072, 30, 8192),
    "mistralai/Voxtral-Small-24B-2507": _voxtral(5120, 40, 32768),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(896, 24, 14, 2, 4864, 151936, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": _qwen2(3584, 28, 28, 4, 18944, 152064, tied=False),
    "gpt2": {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
    "facebook/opt-iml-max-1.3b": {
        "model_type": "opt",
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "ffn_dim": 8192,
        "word_embed_proj_dim": 2048,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
    },
    "google/flan-t5-xl": {
        "model_type": "t5",
        "decoder_start_token_id": 0,
        "d_model": 2048,
        "d_kv": 64,
        "d_ff": 5120,
        "num_layers": 24,
        "num_decoder_layers": 24,
        "num_heads": 32,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
}
"""Language model base -> its configuration, `model_type` included."""
