"""LAION-Audio-630K and its kin: tars of FLAC with JSON (text, tag, original_data), in folders of splits, as its tools
make them of any of its sets. Where the text was made up of labels ("The sounds of ..."), it says no more than they do.

Source: Wu et al., "Large-scale Contrastive Language-Audio Pretraining", ICASSP 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.about import About
from data_builders.corpora.base import Corpus, Recording, Report
from data_builders.corpora.tars import read_tars

ABOUT = About(licence="", columns={"captions": "text", "labels": "tag", "licence": "license"}, separator="\n")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    return read_tars(folder, report, ABOUT, under="original_data")


CORPUS = Corpus(
    name="laion_audio",
    kind="sound",
    licence="per clip",
    homepage="https://github.com/LAION-AI/audio-dataset",
    download="The tars of a set, in folders train, valid, test.",
    layout=("**/*.tar",),
    read=_read,
)
