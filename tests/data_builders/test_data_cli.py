"""The data commands: help without heavy imports, errors in one line, tables of what is there."""

import subprocess
import sys

import pytest
from invented_corpora import wav_bytes
from typer.testing import CliRunner

from data_builders import rates
from data_builders.cli import app

runner = CliRunner()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from data_builders.cli import app; "
        "assert CliRunner().invoke(app, ['build', '--help']).exit_code == 0; "
        "print([name for name in ('torch', 'numpy', 'soundfile', 'soxr', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_builder_imports_torch():
    code = (
        "import sys, data_builders.pipeline, data_builders.formats.exchange, data_builders.cli; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["fetch", "nothing"], ["build", "nothing"]])
def test_an_unknown_recipe_is_named(arguments):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert "'nothing' is not known. Accepted: " in result.output
    assert "quickstart" in result.output


def test_import_then_stats(tmp_path):
    (tmp_path / "dog.wav").write_bytes(wav_bytes(1.0))
    (tmp_path / "mine.csv").write_text("file,question,answer\ndog.wav,What is it?,A dog.\ngone.wav,What?,No.\n")
    imported = runner.invoke(app, ["import", "table", str(tmp_path / "mine.csv"), "-o", str(tmp_path)])
    assert imported.exit_code == 0
    assert "1 rows left out" in imported.output
    counted = runner.invoke(app, ["stats", str(tmp_path / "records.jsonl")])
    assert counted.exit_code == 0
    assert "1 records, 1 clips" in counted.output


def test_stats_lists_broken_rows_and_fails(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"id": "a", "turns": []}\n')
    result = runner.invoke(app, ["stats", str(tmp_path / "records.jsonl")])
    assert result.exit_code == 1
    assert "records.jsonl:1" in result.output.replace("\n", "")


def test_card_of_no_set_says_how_to_build_one(tmp_path):
    result = runner.invoke(app, ["card", str(tmp_path)])
    assert result.exit_code == 1
    assert "lalm data build quickstart" in result.output


def test_bench_tells_rates_and_growth(tmp_path, monkeypatch):
    growth = [rates.Growth(rates.ROWS_PER_BLOCK * n, 0.5 * n, 90.0 + n) for n in (1, 2, 3)]
    monkeypatch.setattr(rates, "measure", lambda: rates.Rates(21_000.0, 42_000.0, 42_000.0, 3_000.0, 900.0))
    monkeypatch.setattr(rates, "build_invented", lambda out, rows, workers: growth)
    result = runner.invoke(app, ["bench", "--rows", "30000", "-o", str(tmp_path)])
    assert result.exit_code == 0
    assert "asked of ready metadata: 21,000 rows/s" in result.output
    assert "asked, validated and written: 10,500 rows/s" in result.output
    assert "30,000" in result.output
    assert "100 million rows at this rate: 1.4 processor hours" in result.output
    refused = runner.invoke(app, ["bench", "--rows", "30000"])
    assert refused.exit_code == 1
    assert "rows: name a folder for the set with -o" in refused.output
