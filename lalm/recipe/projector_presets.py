"""Published sizes of projectors, taken by `preset:`. A value that the recipe gives beside it wins.

Each line says where its numbers are from: (C) the released code or configuration, (P) the paper.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "qformer": {
        # SALMONN (C): windows of 17 steps = 0.333 s, one query, two BERT-base layers, random start; a norm for each
        # encoder.
        "salmonn": {
            "window_steps": 17,
            "queries": 1,
            "num_layers": 2,
            "cross_attention_every": 1,
            "input_norm": "each",
        },
        # BLIP-2 (C): BERT-base, 32 queries over the whole clip, cross-attention in every second layer.
        "blip2": {"window_steps": None, "queries": 32, "num_layers": 12, "cross_attention_every": 2},
        # SLAM-LLM's Q-Former (C): 64 queries, otherwise as BLIP-2.
        "slam_llm": {"window_steps": None, "queries": 64, "num_layers": 12, "cross_attention_every": 2},
        # X-InstructBLIP (P, arXiv 2311.18799), after InstructBLIP (C): BLIP-2's, and the question enters it.
        "x_instructblip": {
            "window_steps": None,
            "queries": 32,
            "num_layers": 12,
            "cross_attention_every": 2,
            "reads_question": True,
        },
        # Granite Speech (C): windows of 15 steps = 0.3 s, three queries, two layers of BERT-large's width over bare
        # states; the zeros of the last window are read.
        "granite_speech": {
            "window_steps": 15,
            "queries": 3,
            "num_layers": 2,
            "hidden_size": 1024,
            "num_heads": 16,
            "intermediate_size": 4096,
            "cross_attention_every": 1,
            "input_norm": "none",
            "filler": "attended",
        },
    },
    "mlp": {
        # SLAM-LLM (C): five steps side by side, 2048 wide, ReLU, no norm.
        "slam_llm": {"stack_steps": 5, "hidden_size": 2048, "num_layers": 2, "activation": "relu", "normalise": False},
        # Voxtral Mini (C): four steps side by side, as wide as its language model, no biases. 12.5 positions a second.
        "voxtral": {
            "stack_steps": 4,
            "hidden_size": 3072,
            "num_layers": 2,
            "activation": "gelu",
            "normalise": False,
            "bias": False,
        },
    },
    "linear": {
        # LTU (C): pairs of steps averaged, divided by 50, LayerNorm without parameters. 32 positions for 10.24 s.
        "ltu": {"pool_steps": 2, "input_norm": "plain", "input_scale": 0.02},
        # MusiLingo (C): mean of 325 steps of MERT, about 4.3 s.
        "musilingo": {"pool_steps": 325},
        # LLark (C): mean of 34 steps of Jukebox, about 0.1 s.
        "llark": {"pool_steps": 34},
        # Qwen-Audio (C): pairs of Whisper's steps averaged, LayerNorm, linear. 25 positions a second.
        "qwen_audio": {"pool_steps": 2, "input_norm": "affine"},
    },
    "conv": {
        # BLSP (C): three layers of kernel 5 and stride 2, between them as wide as Whisper-small, bottleneck of 512.
        "blsp": {"num_layers": 3, "kernel_size": 5, "stride": 2, "hidden_size": 768, "adapter_size": 512},
    },
    "mapper": {
        # Pengi (C): 40 positions, 4 layers of 8 heads, feed-forward twice as wide.
        "pengi": {"prefix_length": 40, "num_layers": 4, "num_heads": 8, "feed_forward_factor": 2},
    },
    "conformer": {
        # SALM as NeMo ships it (C): two layers of width 1024, 8 heads, kernel 9, no subsampling.
        "salm": {"num_layers": 2, "hidden_size": 1024, "num_heads": 8, "kernel_size": 9, "feed_forward_factor": 4},
    },
    "transformer": {
        # Audio Flamingo 1 (C): three layers of 8 heads and 2048 over windows of width 1024.
        "audio_flamingo": {"num_layers": 3, "num_heads": 8, "intermediate_size": 2048},
    },
    "aggregator": {
        # GAMA (C): a 12-layer Q-Former of 32 queries beside two layers that read blocks 8 and 4 (from 0) of the
        # encoder, all of them divided by 50. 96 positions for 10.24 s.
        "gama": {"queries": 32, "num_layers": 12, "cross_attention_every": 2, "num_taps": 2, "input_scale": 0.02},
    },
    "tltr": {
        # LTU-AS (C): all 32 layers of Whisper-large, 20 steps averaged. 25 positions for 10 s.
        "ltu_as": {"layers_read": 32, "pool_steps": 20, "num_heads": 8, "feed_forward_factor": 4},
    },
}
"""Projector -> preset -> the fields that it sets."""
