"""The errors that a person can act on: each names the thing, the value, what is accepted and what to do.

Anything else that escapes is a bug of `lalm` and keeps its traceback; the CLI prints these without one.
"""

from __future__ import annotations


class LalmError(Exception):
    """Base of every error whose cause is a file, a key or a value that the user gave."""


class RecipeError(LalmError):
    """A recipe file, or an override of one, cannot be used. Carries every problem of the file at once."""


class AudioError(LalmError):
    """One audio file cannot be decoded or is not usable (empty, truncated, too long)."""


class DataError(LalmError):
    """A record, or the file it stands in, breaks the record contract."""


class ModelError(LalmError):
    """A base model cannot be found, or parts of a model do not fit together."""


class CheckpointError(LalmError):
    """A checkpoint is incomplete, damaged, or was trained on another base model."""


class TrainingError(LalmError):
    """A run cannot go on: the loss is no number, or it was started in a way that it cannot work in."""


class EndpointError(LalmError):
    """A server that should write text is down, refuses the key, or does not know the model."""


class MissingPackageError(LalmError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, purpose: str, extra: str):
        super().__init__(f"{purpose} needs the package '{package}'. Install it with: pip install 'lalm[{extra}]'")
