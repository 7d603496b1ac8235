"""Checks a file of records, a sharded set or a built set: rows, clips, digests. Every problem has its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_builders.shards import ENDINGS, MANIFEST, file_sha256, read_manifest, read_shard
from lalm.audio.io import probe_audio
from lalm.data.records import scan_records
from lalm.errors import AudioError, DataError

LONGEST_CLIP_SECONDS = 3600.0
MAX_PROBLEMS = 1000


@dataclass
class Checked:
    """How many rows, clips and files were looked at, and what is wrong. Stops listing at MAX_PROBLEMS."""

    rows: int = 0
    clips: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def validate(path: Path, *, audio: bool = True) -> Checked:
    """Checks a file of records, or a folder with a manifest. Without `audio`, clips are not opened.

    Raises:
        DataError: if there is nothing that can be checked.
    """
    found = Checked()
    if path.is_file():
        _check_file(path, found, audio)
    elif (path / MANIFEST).is_file():
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if "shards" in manifest:
            _check_shards(path, found, audio)
        if "counts" in manifest:
            _check_built(path, found, audio)
    else:
        raise DataError(f"{path}: is no file of records and no folder with {MANIFEST}.")
    return found


def _check_file(path: Path, found: Checked, audio: bool) -> None:
    records, problems = scan_records(path)
    for problem in problems:
        found.add(problem)
    ids: set[str] = set()
    clips: set[str] = set()
    for record in records:
        found.rows += 1
        if record.id in ids:
            found.add(f"{path} (id '{record.id}'): the id stands twice. Give each record its own.")
        ids.add(record.id)
        for name in record.audio:
            if name not in clips:
                clips.add(name)
                found.clips += 1
                for problem in _clip_problems(path.parent, name, audio):
                    found.add(f"{path} (id '{record.id}'): {problem}")


def _clip_problems(folder: Path, name: str, audio: bool) -> Iterator[str]:
    if PurePosixPath(name).is_absolute() or "\\" in name:
        yield f"{name}: is not a relative path with forward slashes; the set cannot be moved."
    elif not (folder / name).resolve().is_relative_to(folder.resolve()):
        yield f"{name}: lies outside the folder of the set."
    elif audio:
        try:
            seconds = probe_audio(folder / name).seconds
            if not 0 < seconds <= LONGEST_CLIP_SECONDS:
                yield f"{name}: lasts {seconds:g} s. Accepted: more than 0, at most {LONGEST_CLIP_SECONDS:g}."
        except AudioError as error:
            yield str(error)


def _check_shards(folder: Path, found: Checked, audio: bool) -> None:
    """Digests, counts and rows of every shard; files that the manifest does not name; clips inside tars."""
    manifest = read_manifest(folder)
    ids: set[str] = set()
    names = {shard["name"] for shard in manifest["shards"]}
    for shard in manifest["shards"]:
        path = folder / shard["name"]
        found.files += 1
        if not path.is_file():
            found.add(f"{path}: is missing.")
            continue
        if file_sha256(path) != shard["sha256"]:
            found.add(f"{path}: its sha256 is not that of the manifest; it was damaged or changed.")
            continue
        rows = 0
        try:
            for record in read_shard(path):
                rows += 1
                if record.id in ids:
                    found.add(f"{path} (id '{record.id}'): the id stands twice.")
                ids.add(record.id)
            for problem in _tar_problems(path) if path.suffix == ".tar" and audio else ():
                found.add(problem)
        except DataError as error:
            found.add(str(error))
        if rows != shard["rows"]:
            found.add(f"{path}: holds {rows} rows where the manifest says {shard['rows']}.")
        found.rows += rows
    if found.rows != manifest["request"]["rows"] and not found.problems:
        found.add(f"{folder}: {found.rows} rows where the manifest says {manifest['request']['rows']}.")
    found_here = (path.name for ending in ENDINGS.values() for path in folder.glob(f"*{ending}"))
    for extra in sorted(name for name in found_here if name not in names):
        found.add(f"{folder / extra}: is not named by the manifest.")


def _tar_problems(path: Path) -> Iterator[str]:
    """Clips that a row names and its tar lacks, or that lie elsewhere."""
    import tarfile

    with tarfile.open(path) as tar:
        members = {member.name for member in tar if member.isfile()}
    for record in read_shard(path):
        missing = [name for name in record.audio if name not in members]
        if missing:
            yield f"{path} (id '{record.id}'): {missing} is not in the tar."


def _check_built(folder: Path, found: Checked, audio: bool) -> None:
    """A set that `lalm data build` sealed: digests of its record files and clips, then its records."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    digests = {**manifest.get("files", {}), **{f"clips/{name}": of for name, of in manifest.get("clips", {}).items()}}
    for name, digest in digests.items():
        found.files += 1
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            found.add(f"{name}: lies outside the folder of the set.")
        elif not path.is_file():
            found.add(f"{path}: is missing.")
        elif file_sha256(path) != digest:
            found.add(f"{path}: its sha256 is not that of the manifest; it was damaged or changed.")
    for name in manifest.get("files", {}):
        if (folder / name).is_file() and Path(name).suffix in (".jsonl", ".parquet"):
            _check_file(folder / name, found, audio)
