"""The table of corpora: everyone is in it, each is one short file, tested on an invented fixture."""

import importlib
import re
from pathlib import Path

import pytest

import data_builders.corpora as package
from data_builders.corpora import CORPORA, corpus_named
from data_builders.corpora.base import KINDS
from lalm.errors import DataError

FOLDER = Path(package.__file__).parent
README = FOLDER.parents[1] / "README.md"
FILES = {path.stem for path in FOLDER.glob("*.py") if "\nCORPUS = " in path.read_text(encoding="utf-8")}
TESTS = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*_corpora.py"))


def test_every_file_with_a_corpus_is_in_the_table():
    assert set(CORPORA) == FILES
    assert len(FILES) >= 37


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_corpus_is_one_file_of_under_60_lines_and_is_tested(name):
    corpus = importlib.import_module(f"data_builders.corpora.{name}").CORPUS
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60
    assert corpus.name == name
    assert corpus.kind in KINDS
    assert corpus.licence
    assert corpus.download
    assert corpus.homepage.startswith("https://") or corpus.kind == "generic"
    assert f'"{name}", tmp_path' in TESTS


def test_the_readme_shows_one_corpus_whole_and_lists_all():
    text = README.read_text(encoding="utf-8")
    assert f"```python\n{(FOLDER / 'esc50.py').read_text(encoding='utf-8')}```" in text
    listed = [
        line.split(" | ") for line in text.splitlines() if re.match(r"\| \w+ \| (sound|speech|music|generic) \| ", line)
    ]
    assert {line[0].removeprefix("| "): (line[1], line[2]) for line in listed} == {
        name: (corpus.kind, corpus.licence) for name, corpus in CORPORA.items()
    }


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(DataError, match=r"'esc-50' is not known\. Did you mean 'esc50'\?"):
        corpus_named("esc-50")
