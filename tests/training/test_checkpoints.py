"""Checkpoint files: complete ones are found, random state comes back, the last ones stay."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lalm.errors import CheckpointError
from lalm.training import checkpoints


def make(folder, step, *, whole=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / checkpoints.TRAINED).write_bytes(b"")
    if whole:
        (path / checkpoints.STATE).write_text("{}")
    return path


def test_incomplete_and_foreign_folders_are_passed_over(tmp_path):
    make(tmp_path, 9)
    make(tmp_path, 100)
    make(tmp_path, 200, whole=False)
    make(tmp_path / checkpoints.STAGING, 300)
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in checkpoints.find_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-100"]


def test_the_last_ones_stay(tmp_path):
    for step in (5, 10, 15, 20):
        make(tmp_path, step)
    checkpoints.keep_last(tmp_path, 2)
    assert [path.name for path in checkpoints.find_checkpoints(tmp_path)] == ["checkpoint-15", "checkpoint-20"]
    make(tmp_path, 25)
    checkpoints.keep_last(tmp_path, 1, also=15)
    assert [path.name for path in checkpoints.find_checkpoints(tmp_path)] == ["checkpoint-15", "checkpoint-25"]


def test_publish_replaces_what_was_there(tmp_path):
    old, new = make(tmp_path, 5), make(tmp_path / "staged", 5)
    (new / "more").write_text("x")
    checkpoints.publish(new, old)
    assert (old / "more").read_text() == "x"
    assert not new.exists()


def test_random_state_comes_back(tmp_path):
    random.gauss(0, 1)
    np.random.standard_normal()
    checkpoints.save_random_state(tmp_path, 0)
    expected = (random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.rand(3).tolist())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert checkpoints.load_random_state(tmp_path, 0)
    assert (random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()) == expected
    assert not checkpoints.load_random_state(tmp_path, 1)


def test_optimizer_goes_on_exactly(tmp_path):
    def build():
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        groups = [
            {"params": [layer.weight], "names": ["weight"], "part": "projector", "lr": 0.1},
            {"params": [layer.bias], "names": ["bias"], "part": "projector", "lr": 0.2},
        ]
        optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.95))
        return layer, optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def steps(layer, optimizer, scheduler, count):
        for _ in range(count):
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step(), scheduler.step(), optimizer.zero_grad()

    layer, optimizer, scheduler = build()
    steps(layer, optimizer, scheduler, 3)
    weights = {name: value.clone() for name, value in layer.state_dict().items()}
    checkpoints.save_optimizer(tmp_path, optimizer)
    checkpoints.save_scheduler(tmp_path, scheduler)
    steps(layer, optimizer, scheduler, 3)

    again, optimizer, scheduler = build()
    again.load_state_dict(weights)
    checkpoints.load_optimizer(tmp_path, optimizer)
    checkpoints.load_scheduler(tmp_path, scheduler)
    assert optimizer.param_groups[1]["betas"] == (0.8, 0.95)
    steps(again, optimizer, scheduler, 3)
    for name, value in again.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name])

    optimizer.param_groups[0]["names"] = ["other"]
    with pytest.raises(CheckpointError, match="of other parameters"):
        checkpoints.load_optimizer(tmp_path, optimizer)
