"""WebDataset tars, read in place."""

from __future__ import annotations

from data_builders.corpora.about import read_about
from data_builders.corpora.base import Corpus
from data_builders.corpora.tars import read_tars

CORPUS = Corpus(
    name="webdataset",
    kind="generic",
    licence="unknown",
    homepage="https://github.com/webdataset/webdataset",
    download="Tars, in folders of splits or named train-000000.tar; corpus.yaml maps the keys of their JSON.",
    layout=("**/*.tar",),
    read=lambda folder, report: read_tars(folder, report, read_about(folder)),
)
