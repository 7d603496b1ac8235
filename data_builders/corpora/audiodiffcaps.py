"""AudioDiffCaps: pairs of rain or traffic scenes with up to five sentences on what must change from the first to the
second. "dev" is for training. The published recipes make only the first of each pair; pairs without a second are left
out.

Source: Takeuchi et al., "Audio Difference Captioning Utilizing Similarity-Discrepancy Disentanglement", DCASE 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, csv_rows

CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        place = row.path.parent / "audio" if (row.path.parent / "audio").is_dir() else row.path.parent
        first, second = (
            Audio(one_of(place, (row.text(name).removesuffix(".wav"),), name)) for name in ("s1_fn", "s2_fn")
        )
        captions = tuple(filter(None, map(row.maybe, CAPTIONS)))
        if not captions:
            raise BadRow(CAPTIONS[0], "is missing or empty, as are the others")
        return Recording(
            id=row.text("key"),
            audio=first,
            split="train" if row.path.parent.name == "dev" else "test",
            captions=captions,
            other=second,
        )

    for path in sorted(folder.glob("datasets/adc_*/*/adc_*.csv")):
        yield from each(csv_rows(path, ("key", "s1_fn", "s2_fn", *CAPTIONS), report), recording, report)


CORPUS = Corpus(
    name="audiodiffcaps",
    kind="sound",
    licence="NTT licence (LISENCE.pdf of the repository)",
    homepage="https://github.com/nttcslab/audio-diff-caps",
    download="The repository, and the pairs that its tool makes beside each table (or in audio beside it).",
    layout=("datasets/adc_*/*/adc_*.csv",),
    read=_read,
)
