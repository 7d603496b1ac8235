"""What a run shows: plain lines where there is no terminal, a bar where there is one, TensorBoard files."""

from __future__ import annotations

import io
import sys
import types
from types import SimpleNamespace

import pytest
from rich.console import Console

from lalm.errors import MissingPackageError
from lalm.training.callbacks import StageLog, TensorBoardLog, WandbLog, check_loggers, say
from lalm.training.metrics import MetricsFile, read_metrics

LOGS = {"loss": 2.0, "grad_norm": 0.1, "lr_lora": 1e-3, "records": 4.0, "audio_seconds": 6.0, "positions": 80.0}


def drive(callback, steps=10, start=0):
    state = SimpleNamespace(is_world_process_zero=True, global_step=start, max_steps=steps)
    callback.on_train_begin(None, state, None)
    for step in range(start + 1, steps + 1):
        callback.on_step_begin(None, state, None)
        state.global_step = step
        callback.on_log(None, state, None, logs=dict(LOGS))
    callback.on_train_end(None, state, None)


def test_plain_lines(tmp_path):
    out = io.StringIO()
    metrics = MetricsFile(tmp_path / "metrics.csv")
    drive(StageLog("align", 100, metrics, Console(file=out, width=40), every_steps=5))
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/10", "5/10", "10/10"]
    assert all("loss 2.0000  lr 1.0e-03" in line and "audio-s/s" in line and "left" in line for line in lines)
    rows = read_metrics(metrics.path)
    assert [row["global_step"] for row in rows] == list(range(101, 111))
    assert rows[0]["seconds"] > 0


def test_resuming_drops_rows_that_were_not_saved(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    console = Console(file=io.StringIO())
    drive(StageLog("align", 0, metrics, console, every_steps=5))
    drive(StageLog("align", 0, metrics, console, every_steps=5), start=6)
    assert [row["step"] for row in read_metrics(metrics.path)] == list(range(1, 11))


def test_a_bar_on_a_terminal(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    drive(StageLog("align", 0, MetricsFile(tmp_path / "metrics.csv"), console, every_steps=5))
    assert "10/10" in out.getvalue()
    assert "loss 2.0000" in out.getvalue()


def test_brackets_are_shown_as_they_are():
    out = io.StringIO()
    say(Console(file=out, width=20), "targets [q_proj] of a line that is longer than the console")
    assert out.getvalue() == "targets [q_proj] of a line that is longer than the console\n"


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboard")
    drive(TensorBoardLog(tmp_path / "tensorboard", 0), steps=2)
    assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_wandb_that_is_absent_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_loggers(SimpleNamespace(output=SimpleNamespace(log_to=("tensorboard",))))
    with pytest.raises(MissingPackageError, match="'wandb'"):
        check_loggers(SimpleNamespace(output=SimpleNamespace(log_to=("wandb",))))


@pytest.fixture
def wandb_calls(monkeypatch):
    """A stand-in for the package, which keeps what it is told."""
    calls = []
    run = SimpleNamespace(
        log=lambda numbers, step: calls.append(("log", numbers, step)), finish=lambda: calls.append(("finish",))
    )
    module = types.ModuleType("wandb")
    module.init = lambda **options: calls.append(("init", options)) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_gets_one_run_over_all_stages(wandb_calls, make_recipe, tmp_path):
    recipe = make_recipe()
    drive(WandbLog(recipe, tmp_path / "run" / "wandb", 0), steps=2)
    drive(WandbLog(recipe, tmp_path / "run" / "wandb", 2), steps=3, start=1)
    first, again = (options for kind, options in [call[:2] for call in wandb_calls if call[0] == "init"])
    assert first == again
    assert (first["name"], first["resume"], first["dir"]) == ("tiny", "allow", str(tmp_path / "run" / "wandb"))
    assert first["config"]["language_model"]["lora"]["rank"] == 4
    logged = [(numbers["train/loss"], step) for _, numbers, step in [call for call in wandb_calls if call[0] == "log"]]
    assert logged == [(2.0, 1), (2.0, 2), (2.0, 4), (2.0, 5)]
    assert wandb_calls[-1] == ("finish",)
    other = WandbLog(recipe, tmp_path / "other", 0)
    drive(other, steps=1)
    assert wandb_calls[-3][1]["id"] != first["id"]
