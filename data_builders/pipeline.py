"""Builds the embedded default set: fetch, split, select, write clips, ask, and seal with a manifest.

    lalm data build quickstart -o data/quickstart

The folder appears whole or not at all. It holds train, validation and test records, the clips, the card (README.md),
the licences (NOTICE) and manifest.json; a second run with the same request finds the manifest and does nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.asking import Asked, ask_all
from data_builders.card import notice, write_card
from data_builders.checking import check_asked
from data_builders.clips import SPLITS, Clip, Skipped, Split
from data_builders.debs import Fetched, describe, fetch_package
from data_builders.questions.base import Context
from data_builders.selection import SIZES, Size, select, testable
from data_builders.sources import SOURCES, source
from data_builders.splits import assign_splits, leaks
from data_builders.writing import write_all
from lalm.data.records import write_records
from lalm.errors import DataError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Built:
    """A finished set. `fresh` is False where an earlier build was found and kept."""

    folder: Path
    counts: dict[str, int]
    skipped: tuple[Skipped, ...]
    seconds: float
    fresh: bool


def fetch_quickstart(*, report: Callable[[str], None] = print) -> dict[str, Fetched]:
    """Fetches and opens every package of every source; what is in the cache is not fetched again."""
    return {
        package.name: fetch_package(package, report=report) for name in SOURCES for package in source(name).PACKAGES
    }


def build_quickstart(
    out: Path,
    *,
    size: str = "quickstart",
    seed: int = 0,
    workers: int = 2,
    report: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Built:
    """Builds (or finds) the set in `out`.

    Raises:
        DataError: for an unknown size, a folder that holds something else, or recordings that cannot be fetched.
    """
    if size not in SIZES:
        raise DataError(f"size: '{size}' is not known. Accepted: {', '.join(SIZES)}.")
    out = Path(out)
    started = time.monotonic()
    if out.exists() and not (out / MANIFEST).exists() and any(out.iterdir()):
        raise DataError(
            f"{out}: is not empty and was not built by this command. Name another folder, or empty this one."
        )
    fetched = fetch_quickstart(report=report)
    request = {
        "format": FORMAT,
        "size": size,
        "seed": seed,
        "builder": builder_fingerprint(),
        "packages": [describe(package) for package in fetched.values()],
    }
    found = find_built(out, request)
    if found:
        report(f"{out}: is already built ({sum(found.values())} records); nothing to do")
        return Built(out, found, (), time.monotonic() - started, fresh=False)
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for name in SOURCES:
        report(f"reading {name}")
        more, broken = source(name).read_clips(fetched, seed)
        clips += more
        skipped += broken
    return build_from_clips(
        out,
        clips,
        SIZES[size],
        seed=seed,
        workers=workers,
        request=request,
        skipped=skipped,
        report=report,
        progress=progress,
        started=started,
    )


def build_from_clips(
    out: Path,
    clips: Sequence[Clip],
    size: Size,
    *,
    seed: int,
    workers: int,
    request: dict[str, object],
    skipped: Sequence[Skipped] = (),
    report: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
    started: float | None = None,
) -> Built:
    """Builds a set from clips of any source: split, select, write, ask, seal.

    Raises:
        DataError: if a group of clips would stand in two splits.
    """
    started = time.monotonic() if started is None else started
    splits = assign_splits(clips, seed)
    stored, scenes = select(clips, splits, size, seed)
    scratch = out.parent / f".{out.name}.building"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        report(f"writing {len(stored)} clips and {len(scenes)} scenes")
        written, broken = write_all(stored, scenes, scratch / "clips", seed=seed, workers=workers, progress=progress)
        skipped = [*skipped, *broken]
        asked: dict[str, Asked] = {}
        for split in SPLITS:
            context = context_of(clips, splits, split)
            asked[split] = ask_all(split, [*stored, *scenes], written, context, size.records[split], seed)
        asked, funnel = check_asked(asked, scratch)
        for split in SPLITS:
            write_records(scratch / f"{split}.jsonl", asked[split].records)
        torn = leaks(
            {
                split: [group for record in asked[split].records for group in record.provenance["groups"]]
                for split in SPLITS
            }
        )
        if torn:
            raise DataError(
                f"{out}: the groups {torn[:5]} stand in more than one split. This is a bug of a source's groups."
            )
        used = {record.audio[0].removeprefix("clips/") for split in SPLITS for record in asked[split].records}
        for entry in list(written.values()):
            if entry.file not in used:
                (scratch / "clips" / entry.file).unlink()
        counts: dict[str, int] = {split: len(asked[split].records) for split in SPLITS}
        write_card(scratch, asked, skipped, request, funnel)
        (scratch / "NOTICE").write_text(notice(request["packages"]), encoding="utf-8")
        manifest = {
            "request": request,
            "counts": counts,
            "skipped": [{"id": entry.id, "reason": entry.reason} for entry in skipped],
            "files": {f"{split}.jsonl": _sha256(scratch / f"{split}.jsonl") for split in SPLITS},
            "clips": {
                entry.file: entry.sha256
                for entry in sorted(written.values(), key=lambda entry: entry.id)
                if entry.file in used
            },
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        _swap(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = time.monotonic() - started
    report(f"{out}: {sum(counts.values())} records on {len(used)} clips in {seconds:.0f} s")
    return Built(out, counts, tuple(skipped), seconds, fresh=True)


def context_of(clips: Sequence[Clip], splits: dict[str, Split], split: Split) -> Context:
    """The closed sets that questions of a split draw from, and the translations of its own prompts."""
    sounds, instruments = testable(clips, splits, "sound"), testable(clips, splits, "instrument")
    translations: dict[str, dict[str, str]] = {}
    for clip in clips:
        if clip.kind == "speech" and clip.language and clip.text and splits[clip.group] == split:
            translations.setdefault(clip.facts["key"], {})[clip.language] = clip.text
    return Context(sounds, instruments, tuple(sorted({*sounds, *instruments, "speech"})), translations)


def find_built(out: Path, request: dict[str, object]) -> dict[str, int] | None:
    """The record counts of an earlier build of the same request, if every file of it is whole."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        whole = (
            manifest["request"] == request
            and all(_sha256(out / name) == digest for name, digest in manifest["files"].items())
            and all((out / "clips" / name).is_file() for name in manifest["clips"])
        )
        return manifest["counts"] if whole else None
    except (OSError, ValueError, KeyError):
        return None


def builder_fingerprint() -> str:
    """A digest of the code and the wordings that decide what a set holds: a changed builder builds anew."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted([*here.rglob("*.py"), *here.rglob("*.yaml")]):
        if path.name != "cli.py" and not {"commands", "view"} & set(path.relative_to(here).parts):
            digest.update(str(path.relative_to(here)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _swap(fresh: Path, out: Path) -> None:
    """Puts the finished folder in place of an older one."""
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(fresh, out)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
