"""Writes small corpora in their authors' layouts: texts as given, audio as tiny WAV files of noise."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from data_builders.corpora import CORPORA
from data_builders.corpora.base import Problem, Recording

RATE_HZ = 8000


def noise_bytes(name: str = "", seconds: float = 0.1, form: str = "WAV") -> bytes:
    """A recording of noise, another one for each name."""
    rng = np.random.default_rng(sum(name.encode()) + len(name))
    out = io.BytesIO()
    soundfile.write(out, rng.uniform(-0.4, 0.4, round(seconds * RATE_HZ)), RATE_HZ, format=form)
    return out.getvalue()


def write_corpus(folder: Path, texts: dict[str, str], audio: list[str], seconds: float = 0.1) -> Path:
    """The files of a corpus: tables by name, and a recording under each name of `audio`."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in audio:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        form = "FLAC" if name.endswith(".flac") else "OGG" if name.endswith((".ogg", ".opus")) else "WAV"
        (folder / name).write_bytes(noise_bytes(name, seconds, form))
    return folder


def read_corpus(name: str, folder: Path, **settings: int) -> tuple[list[Recording], list[Problem]]:
    """What a corpus tells, and the problems."""
    problems: list[Problem] = []
    return list(CORPORA[name].recordings(folder, problems.append, **settings)), problems


def tar_of(path: Path, members: list[tuple[str, bytes]], extra: Sequence[tarfile.TarInfo] = ()) -> None:
    """A tar of these files, then of whatever else is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
        for item in extra:
            tar.addfile(item)
