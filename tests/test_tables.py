"""Tables lose no letter and no digit, however short the lines are."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from lalm.tables import FILE_COLUMNS, print_table, table_console


def a_table() -> Table:
    table = Table("part", title="Parameters", title_justify="left", caption="of one process")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("trains in", overflow="fold")
    table.add_row("language_model", "134,515,008", "nothing")
    table.add_row("projector", "5,379,456", "")
    return table


def printed(width: int) -> str:
    file = io.StringIO()
    print_table(Console(file=file, width=width), a_table())
    return file.getvalue()


def test_where_the_words_fit_it_is_a_table():
    for width in (60, 80, 200):
        text = printed(width)
        assert "│ language_model │" in text
        assert max(map(len, text.splitlines())) <= width
        assert "134,515,008" in text


def test_where_they_do_not_each_row_is_a_paragraph():
    assert [line.rstrip() for line in printed(39).splitlines()] == [
        "Parameters",
        "language_model",
        "    parameters  134,515,008",
        "    trains in   nothing",
        "",
        "projector",
        "    parameters  5,379,456",
        "",
        "of one process",
    ]


@pytest.mark.parametrize("width", [34, 36, 40, 50])
def test_nothing_is_cut(width: int):
    text = "".join(printed(width).split())
    for word in ("134,515,008", "language_model", "5,379,456", "nothing"):
        assert word in text, (width, word)


def test_a_word_that_rich_would_cut_between_others_is_not_cut():
    """The words of each column fit beside one another here, and rich still shortens one of them for a longer text."""
    table = Table("task", "records", "clips", "answers", "commonest answer", "share", "chance")
    table.add_row("transcription", "800", "800", "734", "La conférence débutera dès l'arrivé du r", "0.01", "")
    table.add_row("spoken_language", "450", "450", "5", "French", "0.20", "0.20")
    file = io.StringIO()
    print_table(Console(file=file, width=80), table)
    assert "spoken_language" in file.getvalue()


def test_a_file_has_long_lines_unless_someone_says(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert table_console().width == FILE_COLUMNS
    monkeypatch.setenv("COLUMNS", "70")
    assert table_console().width == 70
