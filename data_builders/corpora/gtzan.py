"""GTZAN: 1,000 excerpts of 30 s in ten genres, without splits. Some songs and artists stand in it several times, which
the files do not tell (Sturm, arXiv 1306.1461); jazz.00054.wav of a common copy cannot be decoded.

Source: Tzanetakis, Cook, "Musical genre classification of audio signals", IEEE TSAP 2002.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import audio_files
from data_builders.corpora.rows import Row

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        path: Path = row.path
        genre = path.parent.name
        if genre not in GENRES:
            raise BadRow("genre", f"'{genre}' is none of {', '.join(GENRES)}")
        return Recording(id=path.stem, audio=Audio(path), labels=("hip hop" if genre == "hiphop" else genre,))

    roots = [path for path in (folder / "genres", folder / "genres_original", folder) if (path / GENRES[0]).is_dir()]
    return each((Row(path, 0, {}) for path in audio_files(roots[0])), recording, report)


CORPUS = Corpus(
    name="gtzan",
    kind="music",
    licence="none given (research)",
    homepage="https://web.archive.org/web/2022/http://marsyas.info/downloads/datasets.html",
    download="Unpack genres.tar.gz.",
    layout=("**/blues",),
    read=_read,
)
