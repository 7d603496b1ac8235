"""`lalm evaluate` hands its options on."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lalm.cli import app


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], []),
        (["--lora-scale", "0.5"], ["generation.lora_scale=0.5"]),
        (["seed=1", "--lora-scale", "0"], ["seed=1", "generation.lora_scale=0.0"]),
    ],
)
def test_the_adapters_strength_is_a_change_of_the_recipe(monkeypatch, tmp_path, arguments, expected):
    called = {}
    monkeypatch.setattr("lalm.evaluation.runner.evaluate_run", lambda run, **options: called.update(options))
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path), *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert called["overrides"] == expected
