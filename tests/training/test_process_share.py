"""Micro-batches made ahead in a thread: the same ones, in order, with problems where they belong."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.utils.data import Dataset

import lalm.training.process_share as module
from lalm.training.process_share import ProcessShare, items_ahead
from lalm.training.trainer import LalmTrainer


class Ordered(Dataset):
    """Items in order only, as a stream: what it made, and in which threads."""

    def __init__(self, count: int = 12, broken: int | None = None):
        self.count, self.broken, self.made, self.threads = count, broken, [], set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> dict:
        self.threads.add(threading.current_thread().name)
        self.made.append(item)
        if item == self.broken:
            raise OSError(f"item {item}")
        return {"item": item}


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_items_are_those_of_the_process_in_order(ahead, rank, world_size):
    batches = Ordered()
    share = ProcessShare(batches, rank, world_size, ahead=ahead)
    expected = list(range(rank, 12, world_size))
    assert len(share) == len(expected)
    assert [share[index]["item"] for index in range(len(share))] == expected
    assert batches.made == expected
    assert (threading.current_thread().name in batches.threads) == (ahead == 0)


def test_so_many_are_made_meanwhile():
    batches = Ordered()
    share = ProcessShare(batches, 0, 1, ahead=2)
    assert share[0] == {"item": 0}
    share._begun[2].result()
    assert batches.made == [0, 1, 2]


def test_another_place_starts_anew():
    batches = Ordered()
    share = ProcessShare(batches, 0, 1, ahead=2)
    assert share[3]["item"] == 3
    assert share[7]["item"] == 7
    assert share[8]["item"] == 8
    after = batches.made[batches.made.index(7) :]
    assert after == sorted(after)


def test_a_problem_is_raised_at_its_item():
    share = ProcessShare(Ordered(broken=2), 0, 1, ahead=3)
    assert [share[0]["item"], share[1]["item"]] == [0, 1]
    with pytest.raises(OSError, match="item 2"):
        share[2]
    assert share[3]["item"] == 3


def test_a_gpu_gets_a_step_ahead_and_a_cpu_nothing(monkeypatch):
    monkeypatch.setattr(module, "uses_cpu", lambda: True)
    assert items_ahead(4) == 0
    monkeypatch.setattr(module, "uses_cpu", lambda: False)
    assert items_ahead(4) == 4


@pytest.mark.gpu
def test_for_a_gpu_items_are_pinned():
    batches = [{"states": torch.ones(2, 3), "ids": ["a"], "features": [torch.ones(2), torch.zeros(1)]}]
    item = ProcessShare(batches, 0, 1, ahead=1)[0]
    assert item["states"].is_pinned()
    assert [part.is_pinned() for part in item["features"]] == [True, True]
    assert item["ids"] == ["a"]
    assert not ProcessShare(batches, 0, 1)[0]["states"].is_pinned()


def test_a_resumed_run_has_the_same_losses_with_items_ahead(
    tmp_path, tiny_model, tiny_batches, make_stage, monkeypatch
):
    """As on a GPU: the trainer's steps are the same with a thread that makes the next ones."""
    from test_trainer import trainer

    found = []
    for ahead in (0, 3):
        monkeypatch.setattr("lalm.training.trainer.items_ahead", lambda micro_batches, ahead=ahead: ahead)
        model = type(tiny_model)()
        run, steps = trainer(tmp_path / str(ahead), model, make_stage(), tiny_batches(12, 2), micro_batches=2, die_at=9)
        assert isinstance(run, LalmTrainer)
        with pytest.raises(KeyboardInterrupt):
            run.train()
        model = type(tiny_model)()
        run, after = trainer(tmp_path / str(ahead), model, make_stage(), tiny_batches(12, 2), micro_batches=2)
        run.train(resume_from_checkpoint=str(tmp_path / str(ahead) / "checkpoint-8"))
        found.append((steps.losses, after.losses))
    assert found[0] == found[1]
    assert min(found[0][1]) == 9
