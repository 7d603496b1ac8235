"""Figures of `lalm bench train` from invented pieces, and a whole run of it on tiny shapes."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from lalm import cli
from lalm.bench import train
from lalm.bench.bound import bound_of, linear_products, products_of
from lalm.bench.growth import fit_line, growth_rows
from lalm.bench.ours import OurRun
from lalm.bench.sizes import TINY, Switches
from lalm.bench.tables import compile_line
from lalm.bench.train import TrainOptions, add_shares, summarize, switch_cases
from lalm.bench.workload import Workload
from lalm.errors import RecipeError
from lalm.model.decoder import random_language_model
from lalm.recipe.schema import LanguageModelSection

RUN = OurRun(TINY, Workload(num_clips=2, questions_per_clip=2), batch_records=2, epochs=2)
PREPARED = {
    "kind": "prepare",
    "seconds": 2.0,
    "parts": {"decode": 0.25, "encoder": 1.0},
    "work": {"encoder_calls": 1},
    "num_records": 4,
    "useful_tokens": 100,
    "supervised_tokens": 40,
    "audio_seconds": 30.0,
    "encoder_flops": 500.0,
    "flops": {
        "projector": {"forward": 10.0, "backward": 20.0},
        "decoder": {"forward": 100.0, "backward": 110.0},
        "head": {"forward": 30.0, "backward": 30.0},
    },
    "dtype": "float32",
    "compile_seconds": 12.0,
}


def step(seconds: float, loss: float) -> dict:
    parts = {"lm_forward": seconds / 2, "lm_backward": seconds / 4, "loss": 0.0}
    return {
        "kind": "step",
        "seconds": seconds,
        "records": 2,
        "loss": loss,
        "parts": parts,
        "work": {"decoder_positions": 60},
    }


def summary() -> dict:
    return summarize(RUN, [PREPARED, step(1.0, 6.0), step(1.0, 5.0), step(0.5, 4.0), step(1.5, 3.0)])


def test_what_was_measured_is_kept_after_each_run(monkeypatch):
    """The second case dies; the first stands, with its share of the peak."""
    machine = {
        "device": "some", "has_gpu": False, "matrix_flops_per_second": {"float32": 300.0},
        "datasheet_flops_per_second": None, "load_average": 0.0,
    }  # fmt: skip
    cases = iter([summary()])
    monkeypatch.setattr(train, "_matrix_peak", lambda: machine)
    monkeypatch.setattr(train, "measure_case", lambda run: next(cases))
    kept = []
    with pytest.raises(StopIteration):
        train.measure_training(TrainOptions(TINY), Console(quiet=True), keep=lambda found: kept.append(dict(found)))
    assert [case["case"] for case in kept[-1]["cases"]] == ["all on"]
    assert kept[-1]["cases"][0]["warm"]["share_of_peak"] == pytest.approx(0.5)
    assert "bound" not in kept[-1]


def test_figures_of_a_run():
    figures = summary()
    cold, warm = figures["cold"], figures["warm"]
    assert (cold["seconds"], warm["seconds"]) == (4.0, 2.0)
    assert (cold["samples_per_second"], warm["samples_per_second"]) == (1.0, 2.0)
    assert (cold["useful_tokens_per_second"], warm["useful_tokens_per_second"]) == (25.0, 50.0)
    assert (cold["audio_seconds_per_second"], warm["audio_seconds_per_second"]) == (7.5, 15.0)
    # 300 operations of projector, decoder and head in an epoch, and those of the encoder in the first.
    assert (cold["useful_flops_per_second"], warm["useful_flops_per_second"]) == (800 / 4, 300 / 2)
    assert cold["parts"]["encoder"] == 1.0
    assert warm["parts"]["lm_forward"] == 1.0
    assert warm["parts"]["other"] == 0.5
    assert warm["work"] == {"decoder_positions": 120}
    assert (cold["prepare_seconds"], warm["prepare_seconds"]) == (2.0, 0)
    assert compile_line([figures, {"compile_seconds": 0.0}, {"compile_seconds": 40.0}]) == [
        "Compiling the decoder's layers took 12 to 40 s, counted nowhere above."
    ]
    assert compile_line([{"compile_seconds": 0.0}]) == []
    assert warm["median_step_seconds"] == 1.0
    assert figures["losses"] == [6.0, 5.0, 4.0, 3.0]
    assert figures["useful_tokens_per_record"] == 25.0
    assert figures["fastest_warm_seconds_per_sample"] == 0.5
    longer = replace(RUN, epochs=3)
    pieces = [PREPARED, step(1.0, 6.0), step(1.0, 5.0), step(0.5, 4.0), step(1.5, 3.0), step(0.5, 2.0), step(0.5, 1.0)]
    assert summarize(longer, pieces)["fastest_warm_seconds_per_sample"] == 0.25


def test_the_mfu_of_a_gpu_is_of_its_makers_figure():
    figures = summary()
    add_shares(figures, {"float32": 1000.0}, 2000.0)
    assert figures["warm"]["mfu"] == 0.075
    assert "mfu" not in summary()["warm"]


def test_linear_layers_are_those_of_the_model():
    """Counted with torch's own counter on a frozen decoder."""
    rows, logit_rows = 12, 5
    products = linear_products(TINY, rows=rows, logit_rows=logit_rows)
    language_model = random_language_model(
        LanguageModelSection(base="random", random_sizes=TINY.language_model, attention="eager")
    ).requires_grad_(False)
    embeds = torch.randn(1, rows, TINY.language_model["hidden_size"], requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        states = language_model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state
        language_model.lm_head(states[0, :logit_rows]).sum().backward()
    by_operation = counter.get_flop_counts()["Global"]
    linear = sum(count for name, count in by_operation.items() if "mm" in str(name) and "bmm" not in str(name))
    assert sum(2 * a * b * c * count for (a, b, c), count in products.items()) == linear


def test_the_bound_is_what_the_products_alone_would_allow():
    warm = {"work": {"decoder_calls": 6, "decoder_positions": 600, "logit_rows": 120}, "epochs": 2.0, "seconds": 8.0,
            "useful_flops_per_second": 300.0}  # fmt: skip
    products = products_of(RUN, warm, "float32")
    one = linear_products(TINY, rows=100, logit_rows=20)
    assert products.counts == {product: 3 * count for product, count in one.items()}
    bound = bound_of({"seconds": 1.0, "flops": 2000.0}, warm, 4, 5000.0)
    assert bound["samples_per_second"] == 4.0
    assert bound["share_of_peak"] == 300 * 4 / 5000
    assert bound["share_of_epoch"] == 0.25


def test_shares_are_of_the_type_that_weights_are_held_in():
    figures = summary()
    add_shares(figures, {"float32": 1000.0, "bfloat16": 5000.0})
    assert figures["warm"]["share_of_peak"] == 0.15
    assert figures["cold"]["share_of_peak"] == 0.2
    assert figures["warm"]["parts_share_of_peak"] == {"lm_forward": 0.1, "lm_backward": 110 / 0.5 / 1000}


def test_each_switch_is_measured_off_alone():
    cases = switch_cases()
    assert cases["all on"] == Switches()
    assert sum(vars(cases["all off"]).values()) == 0
    for name in vars(Switches()):
        assert any(not getattr(switches, name) and sum(vars(switches).values()) == 4 for switches in cases.values())
    assert len(cases) == 7


def test_a_line_through_points_of_a_line():
    rows = [{"useful_tokens_per_sample": x, "seconds_per_sample": 0.5 + 0.01 * x} for x in (10.0, 50.0, 200.0)]
    line = fit_line(rows)
    assert line == pytest.approx({"seconds_per_token": 0.01, "seconds_at_zero": 0.5, "r_squared": 1.0})
    assert fit_line(rows[:2]) is None
    case = {"answer_chars": 16, "useful_tokens_per_record": 25.0, "fastest_warm_seconds_per_sample": 0.5}
    assert growth_rows([case]) == [{"answer_chars": 16, "useful_tokens_per_sample": 25.0, "seconds_per_sample": 0.5}]


@pytest.mark.parametrize("changes", [{"questions": 0}, {"num_clips": 0}, {"epochs": 1}])
def test_refused(changes: dict):
    with pytest.raises(RecipeError, match="--questions and --clips: give whole numbers from 1; --epochs: from 2"):
        TrainOptions(TINY, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--seconds", "9-3"), "--seconds '9-3': give two lengths between 0.1 and 30"),
        (("train", "--seconds", "long"), "--seconds 'long'"),
        (("train", "--loader-records", "many"), "--loader-records 'many': give one or several whole numbers from 1"),
        (("peers", "--questions", "0"), "--questions '0'"),
        (("peers", "--peers", "nobody"), "--peers nobody: unknown"),
        (("train", "--size", "huge"), "--size huge: unknown"),
    ],
)
def test_the_command_refuses(monkeypatch, capsys, arguments: tuple[str, ...], message: str):
    monkeypatch.setattr(sys, "argv", ["lalm", "bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow(seconds=30)
def test_the_command_measures_and_draws(monkeypatch, capsys, tmp_path: Path):
    options = ["--size", "tiny", "--clips", "2", "--questions", "2", "--seconds", "0.3-1", "--no-switches"]
    files = ["--no-growth", "--json", str(tmp_path / "out.json"), "--plots", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["lalm", "bench", "train", *options, *files])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (case,) = results["cases"]
    assert case["case"] == "all on"
    assert case["peak_memory_bytes"] > 2**20
    assert all(math.isfinite(loss) for loss in case["losses"])
    assert 0 < case["warm"]["share_of_peak"] < 1
    assert set(results["matrix_flops_per_second"]) == {"float32", "bfloat16"}
    assert results["bound"]["share_of_epoch"] > 0
    out = capsys.readouterr().out
    assert "linear layers alone would make" in out
    assert {path.name for path in tmp_path.glob("*.png")} == {"bench-switches.png", "bench-parts.png"}
    assert "all on" in out
