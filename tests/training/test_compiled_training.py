"""Whole runs with compiled decoder layers: the eager run's losses; chosen by the recipe, or where it pays."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from lalm.training import compiling, train
from lalm.training.metrics import read_metrics

SAID = "The decoder's layers are compiled"


def language_model(compile: str) -> dict:
    return {
        "base": "random",
        "template": "chatml",
        "dtype": "float32",
        "compile": compile,
        "lora": {"rank": 4, "dropout": 0.0},
        "random_sizes": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        },
    }


def losses(folder) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")]


@pytest.mark.slow
@pytest.mark.usefixtures("torch_compiles")
def test_a_compiled_run_has_the_eager_losses(make_recipe, capsys):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    eager = losses(
        train.run_recipe(make_recipe("eager", language_model=language_model("none"), stages=[short_stage()]))
    )
    assert SAID not in capsys.readouterr().out
    compiled = losses(
        train.run_recipe(make_recipe("compiled", language_model=language_model("layers"), stages=[short_stage()]))
    )
    assert capsys.readouterr().out.count(SAID) == 1
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("torch_compiles")
@pytest.mark.parametrize(("pays_from", "is_compiled"), [(7, False), (6, True)])
def test_auto_compiles_where_a_stage_is_long_enough(make_recipe, capsys, monkeypatch, pays_from, is_compiled):
    compiled = []
    monkeypatch.setattr(compiling, "LAYERS_PAY_FROM", pays_from)
    monkeypatch.setattr(compiling, "compile_layers", compiled.append)
    train.run_recipe(make_recipe(language_model=language_model("auto"), stages=[short_stage()]))
    assert (SAID in capsys.readouterr().out) == is_compiled
    assert len(compiled) == is_compiled


@pytest.mark.slow
def test_where_it_would_pay_and_cannot_be_the_reason_is_said(make_recipe, capsys, monkeypatch):
    monkeypatch.setattr(compiling, "LAYERS_PAY_FROM", 1)
    monkeypatch.setattr(compiling, "why_not_compiled", lambda model: "torch cannot compile here (no g++)")
    train.run_recipe(make_recipe(language_model=language_model("auto"), stages=[short_stage()]))
    assert "The decoder's layers are not compiled: torch cannot compile here (no g++)." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compile", "pays_from", "reason", "taken"),
    [("auto", 6, None, True), ("auto", 7, None, False), ("none", 6, None, False), ("auto", 6, "no g++ here", False)],
)
def test_attention_is_compiled_where_it_pays(make_recipe, capsys, monkeypatch, compile, pays_from, reason, taken):
    asked = []
    monkeypatch.setattr(compiling, "ATTENTION_PAYS_FROM", pays_from)
    monkeypatch.setattr(compiling, "has_tiles", lambda model: True)
    monkeypatch.setattr(compiling, "why_no_kernel", lambda: reason)
    monkeypatch.setattr(compiling, "attend_in_tiles", lambda model, wanted: asked.append(wanted))
    train.run_recipe(make_recipe(language_model=language_model(compile), stages=[short_stage()]))
    assert asked == [taken]
    said = "The decoder's attention is not compiled: no g++ here."
    assert (said in capsys.readouterr().out) == (reason is not None)


def short_stage() -> dict:
    return {"name": "only", "learning_rates": {"projector": 0.01}, "steps": 6, "batch_records": 4}


@pytest.mark.parametrize(
    ("key", "value"), [("deepspeed", {}), ("fsdp", {}), ("language_model.quantisation", "nf4")], ids=lambda x: str(x)
)
def test_what_layers_cannot_be_compiled_with_is_refused(make_recipe, key: str, value):
    section = language_model("layers")
    changes = {"language_model": section}
    if key.startswith("language_model."):
        section[key.partition(".")[2]] = value
    else:
        changes[key] = value
    with pytest.raises(ValidationError, match=f"language_model.compile: layers: not with {key}"):
        make_recipe(**changes)
