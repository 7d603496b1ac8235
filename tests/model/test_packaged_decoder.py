"""The packaged language model, a GGUF file, as a transformers folder."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from lalm.model import decoder, gguf_base

pytestmark = [pytest.mark.slow, pytest.mark.real("models")]


def test_it_is_converted_where_models_are_made_without_weights(tmp_path, monkeypatch):
    """`lalm check` may be the first to ask for it."""
    monkeypatch.setattr(gguf_base, "cache_folder", lambda: tmp_path)
    with torch.device("meta"):
        folder = decoder.language_model_folder("package:smollm2-135m-instruct")
    assert folder.startswith(str(tmp_path))
    with safe_open(f"{folder}/model.safetensors", framework="pt") as weights:
        embeddings = weights.get_tensor("model.embed_tokens.weight")
    assert embeddings.dtype == torch.bfloat16
    assert 0.01 < float(embeddings.float().std()) < 1
