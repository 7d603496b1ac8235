"""The CSV file: exact numbers, a torn last row left out, rows behind the checkpoint dropped; and the plot of it."""

from __future__ import annotations

import pytest

from lalm.training.metrics import MetricsFile, read_metrics
from lalm.training.plots import plot_loss, smoothed


def row(step, loss=1 / 3, stage="align"):
    return {
        "stage": stage, "step": step, "global_step": step, "loss": loss, "lr_lora": 1e-4, "grad_norm": 0.5,
        "records": 4.0, "audio_seconds": 2.5, "positions": 99.0, "seconds": 0.25, "epoch": 1.0}  # fmt: skip


def test_rows_come_back_exactly(tmp_path):
    file = MetricsFile(tmp_path / "run" / "metrics.csv")
    file.rewind(0)
    for step in range(1, 6):
        file.add(row(step))
    read = read_metrics(file.path)
    assert [item["step"] for item in read] == [1, 2, 3, 4, 5]
    assert read[0]["loss"] == 1 / 3
    assert read[0]["lr_projector"] is None
    file.path.write_text(file.path.read_text()[:-30])
    assert len(read_metrics(file.path)) == 4
    file.rewind(2)
    file.add(row(3, loss=0.1))
    assert [(item["step"], item["loss"]) for item in read_metrics(file.path)] == [(1, 1 / 3), (2, 1 / 3), (3, 0.1)]


def test_smoothing_starts_at_the_first_value():
    assert smoothed([4.0, 2.0], 0.5) == pytest.approx([4.0, (0.5 * 0.5 * 4 + 0.5 * 2) / 0.75])
    assert smoothed([7.0] * 9) == pytest.approx([7.0] * 9)
    assert smoothed([]) == []


def test_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    file = MetricsFile(tmp_path / "metrics.csv")
    file.rewind(0)
    assert not plot_loss(file.path, tmp_path / "loss.png")
    for step in range(1, 21):
        file.add(row(step, stage="align" if step < 9 else "instruct"))
    assert plot_loss(file.path, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.csv"]
