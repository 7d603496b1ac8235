"""What ZeRO combines with: offloading, a quantised language model, bfloat16; and what is refused."""

from __future__ import annotations

import importlib.util
import json

import pytest
from curricula import tiny_curriculum, write_records
from safetensors.torch import load_file

from lalm.errors import RecipeError
from lalm.model.decoder import byte_tokenizer, random_language_model
from lalm.recipe.load import load_recipe
from lalm.training.metrics import read_metrics

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
STAGE = [{"name": "align", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 4, "batch_records": 4,
          "save_every_steps": 2}]  # fmt: skip
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


@pytest.fixture
def trains_as_one(make, runs):
    """`trains_as_one(zero, ...)`: two processes of which one dies at the third step and that go on come to the losses
    and the weights of one process."""

    def check(zero: str, *overrides: str) -> None:
        one, two = make("one", *overrides), make("two", *overrides, f"deepspeed={{zero_optimization: {zero}}}")
        runs(one)
        runs(two, 2, fails=True, die={"stage": "align", "step": 3, "moment": "step", "ranks": [1]})
        assert "Going on at checkpoint-2" in runs(two, 2)
        assert len(losses(two)) == 4
        assert losses(two) == pytest.approx(losses(one), abs=CLOSE)
        ours, theirs = (load_file(recipe.run_folder() / "trained.safetensors") for recipe in (two, one))
        assert ours.keys() == theirs.keys()
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-3

    return check


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
def test_offloading_trains_saves_and_resumes_as_one_process_does(trains_as_one, zero):
    """The optimizer is torch's AdamW, so no kernel is compiled."""
    trains_as_one(zero)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("quantisation", ["nf4", "int8"])
def test_a_quantised_language_model_trains_under_zero_2_as_without(make, trains_as_one, tmp_path, quantisation):
    """bitsandbytes: the packed weights are whole in each process, the adapter's optimizer is dealt out."""
    pytest.importorskip("bitsandbytes")
    section = make("made").language_model.model_copy(update={"random_sizes": {"hidden_size": 64}})
    random_language_model(section).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    base = (f"language_model.base={tmp_path / 'base'}", f"language_model.quantisation={quantisation}")
    trains_as_one("{stage: 2}", *base)


def test_a_quantised_language_model_under_zero_3_is_refused():
    for name in ("nf4", "int8"):
        changes = [f"language_model.quantisation={name}", "deepspeed={zero_optimization: {stage: 3}}"]
        with pytest.raises(RecipeError, match=rf"deals out slices of weights, .*quantisation: {name} .*stage 1 or 2"):
            load_recipe("tiny", changes)
    load_recipe("tiny", ["language_model.quantisation=nf4", "deepspeed={zero_optimization: {stage: 2}}"])
