"""The main paths on a GPU: training, resuming, quantised bases, answers, the benchmark. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from curricula import tiny_curriculum, write_records
from typer.testing import CliRunner

from lalm.cli import app
from lalm.inference.session import load_session
from lalm.model.decoder import byte_tokenizer, random_language_model
from lalm.model.grouped_attention import is_grouped
from lalm.recipe.schema import LanguageModelSection
from lalm.training import train
from lalm.training.metrics import read_metrics
from lalm.training.trainer import LalmTrainer

pytestmark = pytest.mark.gpu


@pytest.fixture
def data(tmp_path):
    write_records(tmp_path / "data")
    return tmp_path


@pytest.fixture
def base(tmp_path) -> Path:
    """A decoder of random weights, as a folder: a quantised one is read from a folder."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    folder = tmp_path / "base"
    random_language_model(LanguageModelSection(base="random", random_sizes=sizes, kernels="none")).to(
        torch.bfloat16
    ).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.csv")]


@pytest.mark.parametrize("curriculum", ["salmonn", "ltu"])
def test_a_curriculum_trains_and_its_run_answers(data, base, curriculum):
    run = train.run_recipe(tiny_curriculum(data, "run", curriculum, f"language_model.base={base}"))
    values = losses(run)
    assert torch.isfinite(torch.tensor(values)).all()
    assert values[3] < values[0]
    answers = []
    for device in ("cuda", "cpu"):
        session = load_session(run, device=device)
        assert session.model.device.type == device
        session.model.float()
        session.add_audio(data / "data" / "0.wav")
        answers.append(session.ask("Which sound?").text)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_killed_run_goes_on_to_the_same_losses(data, dtype, monkeypatch):
    overrides = (f"language_model.dtype={dtype}",)
    whole = train.run_recipe(tiny_curriculum(data, "whole", "salmonn", *overrides))
    original, left = LalmTrainer.training_step, [9]

    def step(self, *args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LalmTrainer, "training_step", step)
    recipe = tiny_curriculum(data, "cut", "salmonn", *overrides)
    with pytest.raises(KeyboardInterrupt):
        train.run_recipe(recipe)
    cut = train.run_recipe(recipe)
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-2 if dtype == "bfloat16" else 1e-4)


def test_the_gpu_comes_to_the_losses_of_the_cpu(data, base, monkeypatch):
    """In float32, without fused kernels; the processor's run is a process's own that sees no GPU."""
    recipe = tiny_curriculum(
        *(data, "on_gpu", "salmonn", f"language_model.base={base}", "language_model.dtype=float32"), dropout=0.0
    )
    on_gpu = losses(train.run_recipe(recipe))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        on_cpu = losses(train.run_recipe(recipe.model_copy(update={"output": recipe.output.model_copy(
            update={"folder": data / "on_cpu"})})))  # fmt: skip
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
    assert on_gpu == pytest.approx(on_cpu, rel=2e-3)


@pytest.mark.parametrize("quantisation", ["nf4", "int8"])
def test_a_quantised_base_trains(data, base, quantisation):
    pytest.importorskip("bitsandbytes")
    overrides = (f"language_model.base={base}", f"language_model.quantisation={quantisation}")
    values = losses(train.run_recipe(tiny_curriculum(data, "run", "salmonn", *overrides)))
    assert torch.isfinite(torch.tensor(values)).all()
    assert values[3] < values[0]


def test_gradient_checkpointing_changes_no_loss(data, base):
    name = f"language_model.base={base}"
    found = []
    for run, is_on in (("kept", False), ("again", True)):
        recipe = tiny_curriculum(data, run, "salmonn", name, dropout=0.0)
        stages = [stage.model_copy(update={"gradient_checkpointing": is_on}) for stage in recipe.stages]
        found.append(losses(train.run_recipe(recipe.model_copy(update={"stages": stages}))))
    assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_the_decoder_gets_grouped_attention(data):
    model, _ = train.build_model(tiny_curriculum(data, "run", "salmonn"))
    assert model.device.type == "cuda"
    assert is_grouped(model.language_model)


def test_the_benchmark_reports_its_speed(tmp_path):
    path = tmp_path / "train.json"
    options = ["--size", "tiny", "--clips", "2", "--no-switches", "--no-growth", "--json", str(path)]
    result = CliRunner().invoke(app, ["bench", "train", *options])
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert found["device"] == torch.cuda.get_device_name()
    assert found["gpu"] is None
    if found["datasheet_flops_per_second"]:
        assert "MFU, warm" in result.output
