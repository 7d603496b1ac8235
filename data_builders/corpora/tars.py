"""Samples in tars: members of the same name are one (a.flac, a.json, a.txt, a.cls). Read in place, not unpacked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from data_builders.corpora.about import About, recording_of
from data_builders.corpora.base import Audio, BadRow, Problem, Recording, Report
from data_builders.corpora.names import split_in
from data_builders.corpora.places import SUFFIXES, safe_member
from data_builders.corpora.rows import Row
from lalm.errors import DataError


def samples(path: Path, report: Report) -> Iterator[tuple[str, Audio, dict[str, Any]]]:
    """(name, audio, told) of every sample; `told` is its JSON, with `captions` from .txt and `labels` from .cls.

    Raises:
        DataError: for a tar that is packed or cut off.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for name, members in groupby(_members(tar, path, report), key=lambda pair: pair[0]):
                audio, told = None, {}
                for _, suffix, member in members:
                    if f".{suffix.rpartition('.')[2]}" in SUFFIXES:
                        audio = Audio(path, member.name, (member.offset_data, member.size))
                    elif suffix in ("json", "txt", "cls"):
                        told.update(_told(tar, member, suffix, path, report))
                if audio is None:
                    report(Problem(str(path), 0, name, "the sample has no audio", harmless=True))
                else:
                    yield name, audio, told
    except tarfile.ReadError as error:
        raise DataError(f"{path}: is not a whole, unpacked tar: {error}. Unpack .tar.gz with gunzip first.") from None


def _members(tar: tarfile.TarFile, path: Path, report: Report) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    for member in tar:
        tar.members = []  # tarfile would keep every header.
        try:
            place = PurePosixPath(safe_member(member.name))
        except BadRow as bad:
            report(Problem(str(path), 0, bad.column, bad.reason))
            continue
        if member.isfile():
            stem, _, suffix = place.name.partition(".")
            yield (place.parent / stem).as_posix(), suffix.lower(), member
        elif not member.isdir():
            report(Problem(str(path), 0, "member", f"'{member.name}' is a link or a device, which is not read"))


def _told(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, path: Path, report: Report) -> dict[str, Any]:
    text = tar.extractfile(member).read().decode("utf-8", "replace").strip()  # type: ignore[union-attr]
    if suffix != "json":
        return {"captions" if suffix == "txt" else "labels": text}
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        report(Problem(str(path), error.lineno, f"{member.name}, column {error.colno}", f"is not JSON: {error.msg}"))
        return {}
    return told if isinstance(told, dict) else {}


def read_tars(folder: Path, report: Report, about: About, *, under: str | None = None) -> Iterator[Recording]:
    """Every sample of every tar under a folder, its facts mapped as `about` says.

    `under` names a key of the JSON whose object has facts too.
    """
    for path in sorted(folder.glob("**/*.tar")):
        split = next(filter(None, map(split_in, path.relative_to(folder).parts)), None)
        here = about.model_copy(update={"split": split or about.split})
        prefix = "-".join(path.relative_to(folder).with_suffix("").parts)
        for name, audio, told in samples(path, report):
            inner = told.get(under) if under else None
            row = Row(path, 0, {**inner, **told} if isinstance(inner, dict) else told)
            try:
                yield recording_of(row, here, folder, audio, f"{prefix}-{name.replace('/', '-')}")
            except BadRow as bad:
                report(Problem(str(path), 0, f"{name}: {bad.column}", bad.reason, bad.harmless))
