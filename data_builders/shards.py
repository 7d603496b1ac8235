"""Sharded sets: Parquet or WebDataset files of so many rows each, and a manifest that seals them.

    shard-00000.parquet  shard-00001.parquet  ...  manifest.json

Shard k holds rows k * N to (k + 1) * N - 1, whoever writes it, so one process and eight write the same bytes. A shard
appears under its name when it is whole, with a small note of its digest; a killed run is started again and writes what
is missing. manifest.json comes last. Memory does not grow with the set.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from data_builders.row_sources import RowSource
from lalm.data.records import Record, parse_record, record_of_columns
from lalm.errors import DataError

MANIFEST = "manifest.json"
FORMAT = 1
FORMATS = ("parquet", "webdataset")
ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}
ROWS_PER_SHARD = 10_000
BATCH_ROWS = 500
NOTES = ".parts"
"""The folder of notes on finished shards while a run goes on."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=to_jsonable_python)

Format = Literal["parquet", "webdataset"]


@dataclass(frozen=True)
class Shard:
    """One file of a set, as it was written."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Job:
    """What a worker needs to write any shard."""

    source: RowSource
    out: Path
    form: Format
    rows_per_shard: int
    audio_root: Path | None
    prefix: str = "shard"


def write_shards(
    source: RowSource,
    out: Path,
    *,
    form: Format = "parquet",
    rows_per_shard: int = ROWS_PER_SHARD,
    workers: int = 1,
    audio_root: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Writes (or finishes, or finds) the set in `out` and returns its manifest.

    A WebDataset holds the clips too: `audio_root` is what their paths are relative to. `facts` (seeds, versions of what
    made the rows) go into the manifest.

    Raises:
        DataError: for an unknown format, a folder of another set, a row that is no record, or a clip outside
            `audio_root` or missing.
    """
    if form not in FORMATS:
        raise DataError(f"format: '{form}' is not known. Accepted: {', '.join(FORMATS)}.")
    if rows_per_shard < 1 or workers < 1:
        raise DataError(f"rows per shard ({rows_per_shard}) and workers ({workers}) must be at least 1.")
    if form == "webdataset" and audio_root is None:
        raise DataError("format: webdataset needs the folder that audio paths are relative to (audio_root).")
    request = {
        "format": FORMAT,
        "form": form,
        "rows": source.count(),
        "rows_per_shard": rows_per_shard,
        "source": source.identity(),
        "facts": dict(facts or {}),
        "versions": versions(),
    }
    found = _claim(out, request)
    if found:
        return found
    job = Job(source, out, form, rows_per_shard, audio_root)
    total = -(-source.count() // rows_per_shard)
    shards = []
    for shard in _written(job, total, workers):
        shards.append(shard)
        progress(len(shards), total)
    manifest = {"request": request, "shards": [vars(shard) for shard in shards]}
    _write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / NOTES)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a sharded set.

    Raises:
        DataError: if there is none, or it is not of a sharded set of this format.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["request"]["format"] != FORMAT or not isinstance(manifest["shards"], list):
            raise ValueError(f"format {manifest['request']['format']}")
        for shard in manifest["shards"]:
            Shard(**shard)
            if PurePosixPath(shard["name"]).name != shard["name"]:
                raise ValueError(f"shard {shard['name']!r} lies outside the folder")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST}: is no manifest of shards ({error!r}).") from None
    return manifest


def read_shards(folder: Path) -> Iterator[Record]:
    """Every record of a sharded set, in order, one at a time.

    Raises:
        DataError: for a missing shard, or a row that is no record.
    """
    for shard in read_manifest(folder)["shards"]:
        yield from read_shard(folder / shard["name"])


def read_shard(path: Path) -> Iterator[Record]:
    """The records of one shard."""
    if not path.is_file():
        raise DataError(f"{path}: is missing. Run `lalm data export-to-shards` again; it writes what is missing.")
    try:
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and member.name.endswith(".json"):
                        content = tar.extractfile(member)
                        assert content is not None
                        yield parse_record(json.loads(content.read()), f"{path}:{member.name}")
        else:
            import pyarrow.parquet as parquet

            number = 0
            for batch in parquet.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield record_of_columns(row, f"{path}:{number}")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Write the shards again.") from None


def versions() -> dict[str, str]:
    """What the bytes of a shard depend on beside its rows."""
    from importlib.metadata import version

    return {"python": ".".join(map(str, sys.version_info[:2])), **{name: version(name) for name in ("lalm", "pyarrow")}}


def write_shard(number: int, job: Job) -> Shard:
    """Writes one shard, unless a whole one with its note is there."""
    start = number * job.rows_per_shard
    rows = min(job.rows_per_shard, job.source.count() - start)
    path = job.out / f"{job.prefix}-{number:05d}{ENDINGS[job.form]}"
    note = job.out / NOTES / f"{path.name}.json"
    if note.is_file() and path.is_file():
        shard = Shard(**json.loads(note.read_text(encoding="utf-8")))
        if shard.sha256 == file_sha256(path):
            return shard
    temporary = job.out / NOTES / path.name
    records = job.source.rows(start, start + rows)
    count = (
        _write_tar(temporary, records, start, job) if job.form == "webdataset" else _write_parquet(temporary, records)
    )
    if count != rows:
        raise DataError(f"{path}: {count} rows came where the source counts {rows}. The source changed; start again.")
    shard = Shard(path.name, rows, temporary.stat().st_size, file_sha256(temporary))
    os.replace(temporary, path)
    _write_json(note, vars(shard))
    return shard


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _claim(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Makes the folder ready; returns the manifest of a finished run of the same request."""
    begun = out / NOTES / "request.json"
    if (out / MANIFEST).is_file():
        manifest = read_manifest(out)
        whole = all(
            (out / shard["name"]).is_file() and file_sha256(out / shard["name"]) == shard["sha256"]
            for shard in manifest["shards"]
        )
        if manifest["request"] == request and whole:
            return manifest
        if manifest["request"] != request:
            raise DataError(f"{out}: holds the shards of another request. Name another folder, or remove this one.")
        (out / MANIFEST).unlink()
    elif begun.is_file():
        if json.loads(begun.read_text(encoding="utf-8")) != request:
            raise DataError(
                f"{out}: holds the unfinished shards of another request. Remove it, or name another folder."
            )
    elif out.exists() and any(entry.name != NOTES for entry in out.iterdir()):
        raise DataError(f"{out}: is not empty and holds no shards. Name another folder, or empty this one.")
    (out / NOTES).mkdir(parents=True, exist_ok=True)
    _write_json(begun, request)
    return None


def _written(job: Job, total: int, workers: int) -> Iterator[Shard]:
    """Every shard in order, written by so many processes. Started fresh, as a fork would inherit threads."""
    if workers == 1 or total < 2:
        yield from map(partial(write_shard, job=job), range(total))
        return
    with ProcessPoolExecutor(min(workers, total), mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(write_shard, job=job), range(total))


def _write_parquet(path: Path, records: Iterator[Record]) -> int:
    """Columns of a record, free-form values as JSON with sorted keys; one fixed schema, whatever a shard holds."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    turn = arrow.struct([("role", arrow.string()), ("content", arrow.string())])
    kinds = {"audio": arrow.list_(arrow.string()), "turns": arrow.list_(turn), "choices": arrow.list_(arrow.string())}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in Record.model_fields])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(records, BATCH_ROWS)):
            columns = {name: [getattr(record, name) for record in batch] for name in schema.names}
            columns["turns"] = [[vars(turn) for turn in turns] for turns in columns["turns"]]
            for name in ("provenance", "meta"):
                columns[name] = [_json(value) for value in columns[name]]
            writer.write_table(arrow.Table.from_pydict(columns, schema))
            count += len(batch)
    return count


def _write_tar(path: Path, records: Iterable[Record], first: int, job: Job) -> int:
    """Of each row its clips (`<number>.0.flac`) and its record (`<number>.json`), whose audio names those members."""
    count = 0
    assert job.audio_root is not None
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for count, record in enumerate(records, start=1):
            key = f"{first + count - 1:09d}"
            names = []
            for place, name in enumerate(record.audio):
                clip = clip_inside(job.audio_root, name, record.id)
                names.append(f"{key}.{place}{clip.suffix.lower()}")
                _add(tar, names[-1], clip.read_bytes())
            packed = {**record.to_json(), "audio": names}
            if record.audio:
                packed["provenance"] = {**record.provenance, "files": list(record.audio)}
            _add(tar, f"{key}.json", _json(packed).encode())
    return count


def clip_inside(root: Path, name: str, id_: str) -> Path:
    """The file of a clip, which must lie in `root`, links followed.

    Raises:
        DataError: if it lies outside, or does not exist.
    """
    path = (root / name).resolve()
    if PurePosixPath(name).is_absolute() or not path.is_relative_to(root.resolve()):
        raise DataError(f"record '{id_}': {name} lies outside {root}. Only clips in that folder are packed.")
    if not path.is_file():
        raise DataError(f"record '{id_}': {name}: no such file in {root}. `lalm data validate` lists all that miss.")
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without time and owner, so that equal content gives equal bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
