"""The table of formats, and the README's, are the same."""

import re
from pathlib import Path

from data_builders.formats import FORMATS

README = Path(__file__).resolve().parents[3] / "README.md"


def test_the_readme_lists_every_format_as_it_is():
    text = README.read_text(encoding="utf-8")
    table = text.partition("| format | what it is | file | what it holds itself |\n|---|---|---|---|\n")[2]
    rows = re.match(r"(?:\|.*\|\n)+", table)[0].splitlines()
    assert rows == [f"| {form.name} | {form.title} | {form.container} | {form.holds} |" for form in FORMATS.values()]


def test_names_and_sources_are_given():
    for name, form in FORMATS.items():
        assert (name, bool(form.source), bool(form.holds)) == (form.name, True, True)
        assert form.container == "csv" or not form.columns
