"""A run over sharded sets that are never held: trained, killed, gone on with, shown."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import lalm.training.train as train
from data_builders.row_sources import open_rows
from data_builders.shards import write_shards
from lalm.training.metrics import read_metrics
from lalm.training.trainer import LalmTrainer

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Stands for a kill: nothing in the run may catch it."""


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_streamed_run_killed_and_resumed_is_never_killed(make_recipe, tmp_path, monkeypatch, capsys, form):
    data = make_recipe("twin").data.folder
    rows = open_rows(data / "train.jsonl")
    write_shards(rows, data / "shards", form=form, rows_per_shard=5, audio_root=data)
    sources = {"tones": {"records": "shards", "streamed": True, "shuffle_rows": 3}}
    changes = {"data": {"folder": str(data), "sources": sources}}
    train.run_recipe(make_recipe("twin", **changes), dry_run=True)
    assert "align is streamed" in capsys.readouterr().out
    twin = train.run_recipe(make_recipe("twin", **changes))
    original, left = LalmTrainer.training_step, [0]

    def step(self, *args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LalmTrainer, "training_step", step)
    kills = 0
    for left[0] in (4, 3, 5, -1):
        try:
            run = train.run_recipe(make_recipe("run", **changes))
        except Killed:
            kills += 1
            torch.manual_seed(kills)
    assert kills >= 2
    ours, theirs = (read_metrics(folder / "metrics.csv") for folder in (run, twin))
    assert [row["loss"] for row in ours] == [row["loss"] for row in theirs]
    assert len(ours) == 12
    assert all(row["records"] <= 4 and row["audio_seconds"] > 0 for row in ours)
    assert ours[0]["loss/source/tones"] == pytest.approx(ours[0]["loss"], rel=1e-5)
    weights = [load_file(folder / "trained.safetensors") for folder in (run, twin)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    (state,) = (run / "stages/align").glob("checkpoint-6/stream-0.json")
    assert json.loads(state.read_text())["step"] == 6
