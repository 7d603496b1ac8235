"""What ZeRO combines with: offloading, a quantised language model, bfloat16; and what is refused."""

from __future__ import annotations

import importlib.util
import json

import pytest
from curricula import tiny_curriculum, write_records

from lalm.errors import RecipeError
from lalm.model.decoder import byte_tokenizer, random_language_model
from lalm.recipe.load import load_recipe
from lalm.training.metrics import read_metrics

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
STAGE = [{"name": "align", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 3, "batch_records": 4,
          "save_every_steps": 3}]  # fmt: skip
CPU = "{device: cpu}"
CLOSE = 2e-5
"""As in test_whole_curricula: float32 sums in another order."""


def losses(recipe) -> list[float]:
    return [row["loss"] for row in read_metrics(recipe.run_folder() / "metrics.csv")]


@pytest.fixture
def make(tmp_path):
    write_records(tmp_path / "data")

    def make(run: str, *overrides: str):
        return tiny_curriculum(tmp_path, run, "salmonn", f"stages={json.dumps(STAGE)}", *overrides, dropout=0.0)

    return make


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize(
    "zero",
    [
        f"{{stage: 2, offload_optimizer: {CPU}}}",
        f"{{stage: 3, offload_optimizer: {CPU}, offload_param: {CPU}}}",
    ],
    ids=["zero2-optimizer", "zero3-all"],
)
def test_offloading_trains_as_one_process_does(make, runs, zero):
    """The optimizer is torch's AdamW, so no kernel is compiled."""
    one, two = make("one"), make("two", f"deepspeed={{zero_optimization: {zero}}}")
    runs(one)
    runs(two, 2)
    assert losses(two) == pytest.approx(losses(one), abs=CLOSE)


@pytest.mark.slow
@needs_deepspeed
def test_a_quantised_language_model_trains_under_zero_2_as_without(make, runs, tmp_path):
    """nf4 through bitsandbytes: the packed weights are whole in each process, the adapter's optimizer is dealt out."""
    pytest.importorskip("bitsandbytes")
    section = make("made").language_model.model_copy(update={"random_sizes": {"hidden_size": 64}})
    random_language_model(section).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    base = (f"language_model.base={tmp_path / 'base'}", "language_model.quantisation=nf4")
    one, two = make("one", *base), make("two", *base, "deepspeed={zero_optimization: {stage: 2}}")
    runs(one)
    runs(two, 2)
    assert losses(two) == pytest.approx(losses(one), abs=CLOSE)


def test_a_quantised_language_model_under_zero_3_is_refused():
    changes = ["language_model.quantisation=nf4", "deepspeed={zero_optimization: {stage: 3}}"]
    with pytest.raises(RecipeError, match=r"stage: 3 deals out slices of weights, and those of .*quantisation: nf4"):
        load_recipe("tiny", changes)
    load_recipe("tiny", ["language_model.quantisation=nf4", "deepspeed={zero_optimization: {stage: 2}}"])
