"""A run over sharded sets that are never held: trained, killed, gone on with, shown."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_two_processes_stream_rows_of_their_own_and_go_on_exactly(make_recipe, tmp_path, runs):
    """In each pass every row is drawn once, by one of the two; one of them dies, both resume as if it had not."""
    data = make_recipe("twin").data.folder
    rows = open_rows(data / "train.jsonl")
    write_shards(rows, data / "shards", form="parquet", rows_per_shard=5, audio_root=data)
    sources = {"tones": {"records": "shards", "streamed": True, "shuffle_rows": 3}}
    stage = {"name": "align", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 8, "batch_records": 4,
             "save_every_steps": 2}  # fmt: skip
    changes = {"data": {"folder": str(data), "sources": sources}, "stages": [stage]}
    twin, run = make_recipe("twin", **changes), make_recipe("run", **changes)
    runs(twin, 2, records=str(tmp_path / "twin_records"))
    death = {"stage": "align", "step": 5, "moment": "step", "ranks": [1]}
    runs(run, 2, fails=True, die=death)
    said = runs(run, 1, fails=True)
    assert "the stream was read by 2 processes, and each has a share of its own; 1 cannot go on with it" in said
    assert "Going on at checkpoint-4" in runs(run, 2, records=str(tmp_path / "run_records"))
    drawn = [_drawn(tmp_path / "twin_records" / f"{rank}.jsonl") for rank in (0, 1)]
    everything = sorted(record.id for record in rows.rows(0, rows.count()))
    assert len(everything) == 16
    for steps in (range(4), range(4, 8)):
        first, second = ([name for step in steps for name in of_one[step]] for of_one in drawn)
        assert len(first) == len(second) == 8
        assert sorted(first + second) == everything
    for rank in (0, 1):
        again = _drawn(tmp_path / "run_records" / f"{rank}.jsonl")
        assert again == {step: drawn[rank][step] for step in range(4, 8)}
    ours, theirs = (read_metrics(recipe.run_folder() / "metrics.csv") for recipe in (run, twin))
    assert [row["loss"] for row in ours] == [row["loss"] for row in theirs]


def _drawn(path: Path) -> dict[int, list[str]]:
    """Step -> ids of the records that one process trained on."""
    found: dict[int, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        _, step, names = json.loads(line)
        found.setdefault(step, []).extend(names)
    return found
