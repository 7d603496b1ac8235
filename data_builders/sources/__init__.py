"""The corpora that recordings come from: one file each, and the table of their names.

A source module has PACKAGES (what to fetch) and read_clips(fetched, seed) -> (clips, skipped).
"""

from __future__ import annotations

import importlib
from types import ModuleType

SOURCES = {
    "asterisk": "data_builders.sources.asterisk",
    "sonic-pi": "data_builders.sources.sonic_pi",
    "soundfont": "data_builders.sources.soundfont",
    "chords": "data_builders.sources.chords",
}


def source(name: str) -> ModuleType:
    """The module of one source.

    Raises:
        KeyError: for a name that is not in SOURCES.
    """
    return importlib.import_module(SOURCES[name])
