"""CoVoST 2: translations of Common Voice 4 into or out of English. covost_v2.fr_en.tsv has the translation of a clip,
and Common Voice's validated.tsv beside it what was said. Its extra training clips are named train_covost.

Source: Wang, Wu, Pino, "CoVoST 2 and Massively Multilingual Speech-to-Text Translation", arXiv 2007.10310.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.names import language_named, split_named
from data_builders.corpora.places import inside
from data_builders.corpora.rows import Row, csv_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    for table in sorted({*folder.glob("covost_v2.*.tsv"), *folder.glob("*/covost_v2.*.tsv")}):
        said = csv_rows(
            table.with_name("validated.tsv"), ("client_id", "path", "sentence"), report, delimiter="\t", quoted=False
        )
        spoken = {row.text("path"): (row.text("sentence"), row.text("client_id")) for row in said}
        rows = csv_rows(table, ("path", "translation", "split"), report, delimiter="\t", quoted=False)
        yield from each(rows, partial(_recording, spoken=spoken), report)


def _recording(row: Row, spoken: dict[str, tuple[str, str]]) -> Recording:
    name, (source, target) = row.text("path"), row.path.name.split(".")[1].split("_")
    if name not in spoken:
        raise BadRow("path", f"'{name}' is not in validated.tsv of Common Voice 4")
    sentence, speaker = spoken[name]
    return Recording(
        id=f"{source}-{target}-{Path(name).stem}",
        audio=Audio(inside(row.path.parent / "clips", name, "path")),
        split=split_named(row.text("split").removesuffix("_covost")),
        group=speaker,
        transcript=sentence,
        translations={language_named(target) or target: row.text("translation")},
        language=language_named(source),
        speaker=speaker,
    )


CORPUS = Corpus(
    "covost", "speech", "CC-BY-NC-4.0 (translations; speech CC0-1.0)", "https://github.com/facebookresearch/covost",
    "covost_v2.SOURCE_TARGET.tsv beside validated.tsv and clips of Common Voice 4 in that language.",
    (), _read,
)  # fmt: skip
