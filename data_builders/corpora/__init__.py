"""The corpora that a person downloads: one file each. A module of this package that has a CORPUS is in the table."""

from __future__ import annotations

import importlib
import pkgutil

from data_builders.corpora.base import Corpus

CORPORA: dict[str, Corpus] = {
    module.CORPUS.name: module.CORPUS
    for entry in pkgutil.iter_modules(__path__)
    if hasattr(module := importlib.import_module(f"{__name__}.{entry.name}"), "CORPUS")
}
"""By name, as a recipe writes it (`corpus: esc50`)."""


def corpus_named(name: str) -> Corpus:
    """The corpus of that name.

    Raises:
        DataError: for a name that no corpus has, with the nearest one.
    """
    import difflib

    from lalm.errors import DataError

    if name not in CORPORA:
        close = difflib.get_close_matches(name, CORPORA, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise DataError(f"corpus: '{name}' is not known.{hint} Accepted: {', '.join(sorted(CORPORA))}")
    return CORPORA[name]
