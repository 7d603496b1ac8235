"""Losses by task, source and objective against sums written out, and the columns that they take in the file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lalm.training.breakdown import LossBreakdown
from lalm.training.items import count_items
from lalm.training.metrics import MetricsFile, read_metrics
from lalm.training.plots import panel_columns, plot_loss

ACCELERATOR = SimpleNamespace(device="cpu", reduce=lambda value, reduction: value)


def batch(labels, owners, tasks, sources, token_losses, **losses):
    about = {"tasks": tasks, "sources": sources, "owners": torch.tensor(owners)}
    outputs = {"token_losses": torch.tensor(token_losses), "losses": {k: torch.tensor(v) for k, v in losses.items()}}
    return about, torch.tensor(labels), outputs


def test_tokens_count_for_their_own_record():
    """Two rows: records 0 and 1 packed in the first, 2 in the second; a label is predicted one position earlier."""
    breakdown = LossBreakdown(["a", "b"], ["s", "t"], ["language_model"])
    breakdown.add(
        *batch(
            labels=[[-100, 7, 8, -100, -100, 9], [-100, -100, 5, 6, -100, -100]],
            owners=[[0, 0, 0, 1, 1, 1], [2, 2, 2, 2, -1, -1]],
            tasks=["a", "b", "a"],
            sources=["s", "s", "t"],
            token_losses=[1.0, 2.0, 4.0, 8.0, 16.0],
        )
    )
    breakdown.add(*batch([[-100, 3]], [[0, 0]], ["b"], ["t"], [6.0]))
    expected = {
        "loss/task/a": (1 + 2 + 8 + 16) / 4,
        "loss/task/b": (4 + 6) / 2,
        "loss/source/s": (1 + 2 + 4) / 3,
        "loss/source/t": (8 + 16 + 6) / 3,
    }
    assert breakdown.read(ACCELERATOR) == pytest.approx(expected)
    assert breakdown.read(ACCELERATOR) == {}


def test_objectives_add_up_over_micro_batches_and_absent_tasks_are_left_out():
    breakdown = LossBreakdown(["a", "b"], ["s"], ["language_model", "contrastive"])
    about, labels, outputs = batch([[-100, 3]], [[0, 0]], ["b"], ["s"], [6.0], language_model=0.5, contrastive=0.25)
    breakdown.add(about, labels, outputs)
    breakdown.add({**about, "owners": None}, None, {"losses": {"contrastive": torch.tensor(0.5)}})
    assert breakdown.read(ACCELERATOR) == {
        "loss/task/b": 6.0,
        "loss/source/s": 6.0,
        "loss/objective/language_model": 0.5,
        "loss/objective/contrastive": 0.75,
    }


def test_items_are_counted_as_the_losses_divide_by_them():
    labels = torch.tensor([[5, 7, -100, 8]])
    assert count_items({"labels": labels}) == {"language_model": 2.0}
    weighted = {"labels": labels, "label_weights": torch.tensor([[9.0, 0.5, 9.0, 0.25]])}
    assert count_items(weighted) == {"language_model": 0.75}
    items = {"targets": torch.arange(3), "class_targets": torch.arange(2)}
    assert count_items({"objective_items": items}) == {"contrastive": 3.0, "matching": 3.0, "classification": 2.0}


def test_columns_of_a_later_stage_join_those_of_an_earlier_one(tmp_path):
    path = tmp_path / "metrics.csv"
    row = {"stage": "one", "step": 1, "global_step": 1, "loss": 2.0, "seconds": 0.5, "loss/task/a": 3.0}
    first = MetricsFile(path, ["loss/task/a", "loss/task/b"])
    first.rewind(0)
    first.add({**row, "loss/task/b": 2.5})
    second = MetricsFile(path, ["loss/task/b", "grad_norm/lora"])
    second.rewind(1)
    second.add({**row, "stage": "two", "global_step": 2, "grad_norm/lora": 0.25, "held_out_loss": 1.5})
    one, two = read_metrics(path)
    assert (one["loss/task/a"], one["loss/task/b"], one["grad_norm/lora"]) == (3.0, 2.5, None)
    assert (two["loss/task/b"], two["grad_norm/lora"], two["held_out_loss"]) == (None, 0.25, 1.5)
    assert path.read_text().splitlines()[0].endswith(",seconds")
    assert panel_columns([one, two], ("loss/task/",)) == ["loss/task/a", "loss/task/b"]
    pytest.importorskip("matplotlib")
    assert plot_loss(path, tmp_path / "loss.png")


def test_a_file_without_the_newer_columns_is_still_read(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("stage,step,global_step,loss,seconds\nalign,1,1,2.5,0.25\n")
    (row,) = read_metrics(path)
    assert (row["loss"], row["held_out_loss"], row["lr_heads"]) == (2.5, None, None)
