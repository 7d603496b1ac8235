"""`lalm check --machine`, and the README's table of machines, which is computed anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lalm.cli import app
from lalm.commands.check_tables import machines_markdown
from lalm.model.machines import parse_machine
from lalm.recipe.load import load_recipe

README = Path(__file__).resolve().parents[2] / "README.md"
RECIPES = ("salmonn_7b", "salmonn_13b")
MACHINES = ("1x24", "1x80", "8x80", "4x8x80")


def test_a_machine_is_shown(tiny_data):
    done = CliRunner().invoke(
        app, ["check", "tiny", f"data.folder={tiny_data}", "--machine", "2x24"], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.output
    assert "Computed for stage instruct, not measured" in done.output
    assert "2 x 24 GB" in done.output
    assert "ZeRO-3 offload, checkpointing" in done.output


@pytest.mark.slow
@pytest.mark.skipif(not README.is_file(), reason="the README is not beside the tests")
def test_the_table_of_the_readme_is_what_is_computed():
    """To write it anew, print what this compares."""
    found = machines_markdown([load_recipe(name) for name in RECIPES], [parse_machine(text) for text in MACHINES])
    assert found in README.read_text(encoding="utf-8")
