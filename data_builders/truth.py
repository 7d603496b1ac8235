"""Clips and scenes with what is known of them, and questions asked of that: the steps of a build, each on its own.

    lalm data compose quickstart -o composed        # clips/, truth.jsonl, closed_sets.json
    lalm data ask composed -o composed/records.jsonl

A row of truth.jsonl holds what every question family reads: the recordings of one file, and the events of a scene. The
questions are those that `lalm data build` asks of the same recipe.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data_builders.clips import SPLITS, Clip, Skipped, Split
from data_builders.filters.base import atomic_text
from data_builders.jobs import Processes, Runner, run_stage
from data_builders.pipeline import Stored, ask_block, blocks_of, context_of, read_written, request_of
from data_builders.questions.base import Context
from data_builders.recipe import DataRecipe
from data_builders.scenes import ScenePlan
from data_builders.selection import StoredClip, StoredScene, select
from data_builders.splits import assign_splits
from data_builders.writing import CHUNK, Written, forget_waves, write_chunk, written_of
from lalm.data.records import Record, parse_record
from lalm.errors import DataError

TRUTH, CLOSED_SETS, PARTS = "truth.jsonl", "closed_sets.json", ".parts"
CLIP_FIELDS = (
    "id", "seconds", "source", "licence", "group", "kind", "language", "text", "label", "facts", "provenance"
)  # fmt: skip


def compose_clips(
    out: Path,
    clips: Sequence[Clip],
    recipe: DataRecipe,
    *,
    runner: Runner | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, list[Skipped]]:
    """Writes the clips and scenes of a recipe with their truth; a stopped run goes on.

    Returns:
        How many files there are, and what could not be written.

    Raises:
        DataError: for a folder that holds something else.
    """
    _claim(out, recipe)
    splits = assign_splits(clips, recipe.seed)
    stored, scenes = select(clips, splits, recipe.size, recipe.seed)
    items: list[Stored] = [*stored, *scenes]
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    forget_waves()
    write = partial(write_chunk, folder=out / "clips", seed=recipe.seed)
    run_stage(out / PARTS, chunks, write, runner or Processes(), progress=progress)
    written, skipped = read_written(out / PARTS, len(chunks))
    contexts = {split: asdict(context_of(clips, splits, split)) for split in SPLITS}
    with atomic_text(out / CLOSED_SETS) as text:
        text.write(json.dumps(contexts, ensure_ascii=False, indent=1) + "\n")
    with atomic_text(out / TRUTH) as text:
        for item in items:
            if item.id in written:
                text.write(json.dumps(truth_row(item, written[item.id]), ensure_ascii=False) + "\n")
    shutil.rmtree(out / PARTS)
    return len(written), skipped


def ask_truth(folder: Path, recipe: DataRecipe) -> Iterator[Record]:
    """The questions of a recipe about the files of a folder that `compose_clips` wrote, split by split.

    Raises:
        DataError: for a folder without truth, or a row of it that cannot be read.
    """
    items, written = read_truth(folder / TRUTH)
    contexts = _read_closed_sets(folder / CLOSED_SETS)
    for block in blocks_of(items, written, recipe):
        for row in ask_block(block, contexts=contexts, recipe=recipe):
            if "record" in row:
                yield parse_record(row["record"], f"{folder / TRUTH}: asked")


def truth_row(item: Stored, written: Written) -> dict[str, Any]:
    """What is known of one file, as JSON."""
    scene = written.scene
    clips = item.plan.clips if isinstance(item, StoredScene) else (item.clip,)
    return {
        "id": item.id,
        "split": item.split,
        "file": written.file,
        "seconds": written.seconds,
        "sha256": written.sha256,
        **({"features": written.features} if written.features else {}),
        "telephone": item.telephone,
        "recordings": [{name: getattr(clip, name) for name in CLIP_FIELDS if getattr(clip, name)} for clip in clips],
        **({"variant": item.variant} if isinstance(item, StoredClip) and item.variant else {}),
        **({"scene": {"events": scene.to_json(), "effects": scene.effects}} if scene else {}),
    }


def read_truth(path: Path) -> tuple[list[Stored], dict[str, Written]]:
    """The files of a truth.jsonl, and what is known of each.

    Raises:
        DataError: if it is missing, or a row of it cannot be read, with its line.
    """
    items: list[Stored] = []
    known: dict[str, Written] = {}
    if not path.is_file():
        raise DataError(f"{path}: no such file. `lalm data compose RECIPE -o {path.parent}` writes it.")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                item, written = _item_of(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: is no row of truth ({error!r}). Compose the folder again.") from None
            if item.id in known:
                raise DataError(f"{path}:{number}: the id '{item.id}' stands twice.")
            items.append(item)
            known[item.id] = written
    return items, known


def _item_of(row: Mapping[str, Any]) -> tuple[Stored, Written]:
    clips = tuple(Clip(**{"path": None, "seconds": 0.0, **clip}) for clip in row["recordings"])
    if row["split"] not in SPLITS:
        raise ValueError(f"split {row['split']!r}")
    written = written_of(dict(row))
    assert isinstance(written, Written)
    if written.scene:
        return StoredScene(row["id"], row["split"], ScenePlan(clips, (), ()), row["telephone"]), written
    (clip,) = clips
    return StoredClip(row["id"], row["split"], clip, row.get("variant"), row["telephone"]), written


def _read_closed_sets(path: Path) -> dict[Split, Context]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {
            split: Context(
                sound_labels=tuple(value[split]["sound_labels"]),
                instrument_labels=tuple(value[split]["instrument_labels"]),
                scene_labels=tuple(value[split]["scene_labels"]),
                translations=value[split]["translations"],
            )
            for split in SPLITS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}). `lalm data compose` writes it.") from None


def _claim(out: Path, recipe: DataRecipe) -> None:
    """Makes the folder ready for this request, or finds what a stopped run of it left."""
    note, request = out / PARTS / "request.json", json.dumps(request_of(recipe, []), ensure_ascii=False, sort_keys=True)
    if note.is_file() and note.read_text(encoding="utf-8") == request:
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty and is no unfinished run of this request. Name another folder.")
    note.parent.mkdir(parents=True)
    temporary = note.with_suffix(".new")
    temporary.write_text(request, encoding="utf-8")
    os.replace(temporary, note)
