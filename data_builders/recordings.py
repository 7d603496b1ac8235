"""The recordings that a recipe names: packaged sources, fetched by package name, and corpora in folders of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_builders.clips import Clip, Skipped
from data_builders.corpora import corpus_named
from data_builders.corpora.clips import corpus_clips
from data_builders.debs import Fetched, fetch_package
from data_builders.recipe import DataRecipe
from data_builders.sources import SOURCES, source


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
            clips += corpus_clips(corpus_named(entry.corpus), entry.folder, skipped.append)
    seen: set[str] = set()
    kept = []
    for clip in clips:
        if clip.id in seen:
            skipped.append(Skipped(clip.id, "the id stands twice"))
            continue
        seen.add(clip.id)
        kept.append(clip)
    return kept, skipped
