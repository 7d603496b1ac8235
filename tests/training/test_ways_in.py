"""Every way that audio enters a language model trains as a run: stages, checkpoints, a run folder whose seals hold."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from lalm.model.checkpoint import verify_seals
from lalm.model.decoder import byte_tokenizer
from lalm.recipe.load import load_recipe
from lalm.training.metrics import read_metrics
from lalm.training.train import run_recipe

BERT = "num_layers: 1, hidden_size: 16, num_heads: 2, intermediate_size: 32"
WAYS = {
    "a question that is read": ["projector.reads_question=true", "data.packing=rows"],
    "cross-attention": [
        "language_model.cross_attention={every: 1, num_heads: 2, head_size: 8}",
        "stages.align.gradient_checkpointing=true",
    ],
    "conformer": ["projector={name: conformer, num_layers: 1, hidden_size: 16, num_heads: 2}"],
    "branches": [
        "projector={name: branches, reads: all, branches: [{name: linear, pool_steps: 20}, "
        f"{{name: qformer, window_steps: null, queries: 2, {BERT}}}]}}"
    ],
    "encoder-decoder": ["data.packing=none", "language_model.lora.targets=attention"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_it_trains(way, tiny_data, tmp_path):
    changes = [f"data.folder={tiny_data}", f"output.folder={tmp_path / 'run'}", *WAYS[way]]
    if way == "encoder-decoder":
        torch.manual_seed(0)
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 512}
        config = AutoConfig.for_model("t5", **sizes, decoder_start_token_id=0)
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path / "t5")
        byte_tokenizer().save_pretrained(tmp_path / "t5")
        changes.append(f"language_model.base={tmp_path / 't5'}")
    run_recipe(load_recipe("tiny", changes))
    assert all(holds for _, holds, _ in verify_seals(tmp_path / "run"))
    losses = [float(row["loss"]) for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert len(losses) == 8
    assert len(set(losses)) == 8
