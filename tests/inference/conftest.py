"""A tiny random model with its processor, in float32, whose answers depend on the clips and on the adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lalm.data.records import Turn
from lalm.inference.prompting import Request
from lalm.recipe.schema import Recipe

RECIPE = {
    "name": "tiny",
    "encoders": [
        {
            "name": "whisper",
            "base": "random",
            "padding": "real",
            "random_sizes": {
                "d_model": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "num_mel_bins": 80,
                "max_source_positions": 1500,
            },
        }
    ],
    "projector": {"name": "mlp", "stack_steps": 10, "hidden_size": 32},
    "language_model": {"base": "random", "template": "chatml", "dtype": "float32", "lora": {"rank": 4, "dropout": 0.5}},
    "data": {"sources": {"qa": {"records": "qa.jsonl"}}},
    "stages": [{"name": "align", "learning_rates": {"projector": 1e-3}, "steps": 1}],
    "generation": {"max_new_tokens": 12},
}


@pytest.fixture(scope="session")
def recipe():
    return Recipe.model_validate(RECIPE)


@pytest.fixture(scope="session")
def tiny(recipe):
    """(model, processor), with weights so large that attention is far from uniform."""
    from lalm.model.build import build_model

    model, processor = build_model(recipe, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_positions" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval(), processor


@pytest.fixture(scope="session")
def clip(tiny):
    """clip(seconds, seed) -> a tone in noise whose loudness swells, float32 `[S]`; each seed has another pitch."""

    def make(seconds: float, seed: int = 0) -> np.ndarray:
        num_samples = round(seconds * tiny[1].sampling_rate)
        generator = np.random.default_rng(seed)
        tone = np.sin(2 * np.pi * generator.uniform(100, 4000) / tiny[1].sampling_rate * np.arange(num_samples))
        noise = generator.standard_normal(num_samples)
        return ((0.3 * tone + 0.01 * noise) * np.linspace(0.1, 1, num_samples)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def requests(clip):
    """Eight requests of different length; some with two clips, with none, or with earlier turns."""

    def user(text):
        return Turn(role="user", content=text)

    many = [Request((user(f"What is it? {'Say more. ' * i}"),), (clip(0.3 + 0.4 * i, seed=i),)) for i in range(5)]
    two = Request((user("Is <audio> louder than <audio>?"),), (clip(0.7, seed=8), clip(1.6, seed=9)))
    none = Request((user("Hello"),))
    later = Request(
        (user("<audio>What is it?"), Turn(role="assistant", content="A dog."), user("And <audio> this?")),
        (clip(1.1, seed=10), clip(0.5, seed=11)),
    )
    return [*many, two, none, later]
