"""A small model in the shape of a published system, with a released checkpoint's names."""

from __future__ import annotations

from pathlib import Path

import pytest

from lalm.recipe.load import load_recipe
from lalm.recipe.schema import Recipe

CAV_MAE = "{hidden_size: 128, num_hidden_layers: 12, num_attention_heads: 2, intermediate_size: 96}"
"""Heads of the published width, and the published depth, in which GAMA's taps lie."""
LLAMA = "{num_key_value_heads: 4, tie_word_embeddings: false}"
"""A key for every query and a head of its own, as LLaMA 1 and 2 of 7 B have them."""
SMALL = {
    "salmonn_13b": """
encoders:
  - {name: whisper, base: random, dtype: float32}
  - name: beats
    base: random
    dtype: float32
    random_sizes:
      {encoder_layers: 2, encoder_embed_dim: 24, encoder_ffn_embed_dim: 32, encoder_attention_heads: 4, embed_dim: 16,
       conv_pos: 16, conv_pos_groups: 4, num_buckets: 32, max_distance: 80}
projector: {preset: salmonn, partial_window: drop, hidden_size: 16, num_heads: 4, intermediate_size: 32}
language_model: {base: random, dtype: float32, template: chatml, lora: {rank: 2, alpha: 8}}
""",
    "ltu": f"""
encoders: [{{name: cav_mae, base: random, dtype: float32, keep_filler: true, random_sizes: {CAV_MAE}}}]
language_model:
  {{base: random, dtype: float32, template: ltu, lora: {{rank: 2, alpha: 8}}, random_sizes: {LLAMA}}}
""",
    "gama": f"""
encoders:
  - {{name: cav_mae, base: random, dtype: float32, keep_filler: true, layers: [4, 8, 11], layers_as: separate,
     random_sizes: {CAV_MAE}}}
projector:
  {{preset: gama, queries: 3, num_layers: 3, hidden_size: 128, num_heads: 4, intermediate_size: 32}}
language_model:
  {{base: random, dtype: float32, template: ltu, lora: {{rank: 2, alpha: 8}}, random_sizes: {LLAMA}}}
""",
}
"""What replaces the sizes of a published recipe."""


@pytest.fixture
def small_recipe(tmp_path: Path):
    """Name of a published recipe -> the same system with small random bases."""

    def make(name: str) -> Recipe:
        path = tmp_path / f"small_{name}.yaml"
        path.write_text(f"extends: {name}.yaml\nname: small_{name}\n{SMALL[name]}", encoding="utf-8")
        return load_recipe(path)

    return make
