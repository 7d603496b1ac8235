"""A folder of audio: `label/clip.wav`, `split/label/clip.wav`, or clips without any label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.about import read_about
from data_builders.corpora.base import Audio, Corpus, Recording, Report
from data_builders.corpora.names import label_of, split_named
from data_builders.corpora.places import audio_files


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    about = read_about(folder)
    for path in audio_files(folder / about.audio):
        parents = path.relative_to(folder / about.audio).parts[:-1]
        split = split_named(parents[0]) if parents else None
        label = (parents[1:] if split else parents)[-1:]
        yield Recording(
            id="-".join((*parents, path.stem)),
            audio=Audio(path),
            split=split or about.split,
            licence=about.licence,
            labels=tuple(label_of(name) for name in label),
        )


CORPUS = Corpus(
    name="folder",
    kind="generic",
    licence="unknown",
    homepage="",
    download="Audio in folders named by label, with or without folders of splits above; corpus.yaml gives the licence.",
    layout=(),
    read=_read,
    isolated=True,
)
