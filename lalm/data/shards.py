"""Sharded sets read as a stream: every process its own rows, shuffled within a bounded buffer, no index of the set.

    stream = ShardStream(open_shards("data/shards"), rank=3, world_size=64, seed=0, shuffle_rows=10_000)
    stream.row(12345)          # the 12346th row that this process draws

In each pass the shards stand in a new order, one after the other. That line of N rows is cut into `world_size` equal
stretches, so the shares of two processes differ by one row at most and never overlap; a shard that lies on a cut is
read by both, each its own rows, so there may also be fewer shards than processes. A process reads its stretch in
blocks of `shuffle_rows` and shuffles each. Order, cuts and shuffles follow from the seed and the counts in the
manifest: the number of rows drawn is the whole state of a stream.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lalm.data.records import Record, parse_record, record_of_columns
from lalm.errors import DataError
from lalm.recipe.schema import Recipe

MANIFEST = "manifest.json"
FORMAT = 1
"""Of the manifest that `lalm data export-to-shards` writes."""


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards as its manifest has it: file names and the rows of each, in the order of the set."""

    folder: Path
    names: tuple[str, ...]
    rows: tuple[int, ...]
    digest: str

    @property
    def num_rows(self) -> int:
        """Records of the set."""
        return sum(self.rows)


def open_shards(folder: Path) -> ShardSet:
    """Reads the manifest, and nothing else.

    Raises:
        DataError: if there is no usable manifest, or a shard is missing.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["request"]["format"] != FORMAT:
            raise ValueError(f"format {manifest['request']['format']}")
        shards = [(str(shard["name"]), int(shard["rows"]), str(shard["sha256"])) for shard in manifest["shards"]]
        if any(PurePosixPath(name).name != name for name, _, _ in shards):
            raise ValueError("a shard lies outside of the folder")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no manifest of shards ({error!r}). Write the set with: lalm data export-to-shards FILE -o "
            f"{folder}"
        ) from None
    missing = [name for name, _, _ in shards if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {len(missing)} of {len(shards)} shards are missing, {missing[0]} first.")
    digest = hashlib.sha256(json.dumps(shards).encode()).hexdigest()
    return ShardSet(folder, tuple(name for name, _, _ in shards), tuple(rows for _, rows, _ in shards), digest)


class ShardStream:
    """The endless line of rows that one process draws from a set. Row n is the same whenever it is asked for.

    Raises:
        DataError: if the set has fewer rows than there are processes.
    """

    def __init__(self, shards: ShardSet, *, rank: int, world_size: int, seed: int | str, shuffle_rows: int):
        if shards.num_rows < world_size:
            raise DataError(
                f"{shards.folder}: has {shards.num_rows} rows for {world_size} processes, so some would have none. "
                f"Start at most {shards.num_rows}, or do not stream this source."
            )
        self.shards, self.seed, self.rank, self.shuffle_rows = shards, seed, rank, shuffle_rows
        self.start, self.stop = (shards.num_rows * number // world_size for number in (rank, rank + 1))
        self._place: tuple[int, int] | None = None
        self._block: Block = []
        self._shuffled = np.zeros(0, np.int64)

    @property
    def rows_per_pass(self) -> int:
        """Rows of this process in one pass over the set."""
        return self.stop - self.start

    def row(self, number: int) -> Record:
        """Row `number` of this process, from 0 on, pass after pass.

        Raises:
            DataError: if a shard cannot be read, or the row is no record.
        """
        block, place = self._find(number)
        return row_record(block, place)

    def ids(self, start: int, count: int) -> list[str]:
        """Ids of the rows `start` to `start + count - 1`, without reading the rest of them where that can be."""
        found: list[str] = []
        while len(found) < count:
            number = start + len(found)
            block, _ = self._find(number)
            within = number % self.rows_per_pass % self.shuffle_rows
            found += block_ids(block, self._shuffled[within : within + count - len(found)])
        return found

    def _of(self, number: int) -> tuple[int, int]:
        """Pass and block of a row."""
        passed, offset = divmod(number, self.rows_per_pass)
        return passed, offset // self.shuffle_rows

    def _order(self, passed: int, block: int) -> np.ndarray:
        size = min(self.shuffle_rows, self.rows_per_pass - block * self.shuffle_rows)
        return _rng(f"{self.seed}/rows/{passed}/{self.rank}/{block}").permutation(size)

    def _find(self, number: int) -> tuple[Block, int]:
        """The block that holds a row, and where in it."""
        passed, block = self._of(number)
        if self._place != (passed, block):
            self._place, self._block = None, []  # The old block goes before the next comes.
            self._block = self._read(passed, block)
            self._shuffled = self._order(passed, block)
            self._place = (passed, block)
        within = number % self.rows_per_pass - block * self.shuffle_rows
        return self._block, int(self._shuffled[within])

    def _read(self, passed: int, block: int) -> Block:
        first = self.start + block * self.shuffle_rows
        parts = [
            read_rows(self.shards.folder / self.shards.names[shard], start, stop)
            for shard, start, stop in self._stretches(passed, first, min(first + self.shuffle_rows, self.stop))
        ]
        return [row for part in parts for row in part] if isinstance(parts[0], list) else _joined(parts)

    def _stretches(self, passed: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Shard, and its rows from one to another, of the stretch of the line from row `first` to `last` - 1."""
        place = 0
        for shard in _rng(f"{self.seed}/shards/{passed}").permutation(len(self.shards.names)):
            rows = self.shards.rows[shard]
            start, stop = max(first - place, 0), min(last - place, rows)
            if start < stop:
                yield int(shard), start, stop
            place += rows


Block = Any
"""Rows in memory: an Arrow table, or a list of JSON objects."""


def read_rows(path: Path, start: int, stop: int) -> Block:
    """Rows `start` to `stop` - 1 of one shard.

    Raises:
        DataError: if it cannot be read, or has fewer.
    """
    try:
        block = _tar_rows(path, start, stop) if path.suffix == ".tar" else _parquet_rows(path, start, stop)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Write the shards again.") from None
    if len(block) != stop - start:
        raise DataError(f"{path}: has fewer rows than its manifest says. Write the shards again.")
    return block


def _parquet_rows(path: Path, start: int, stop: int) -> Any:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = [number for number, end in enumerate(ends) if end > start and end - sizes[number] < stop]
        skipped = int(ends[groups[0]]) - sizes[groups[0]] if groups else 0
        return file.read_row_groups(groups, use_threads=False).slice(start - skipped, stop - start)


def _tar_rows(path: Path, start: int, stop: int) -> list[dict[str, Any]]:
    """JSON objects, each clip named by its place in the tar: `shard.tar#offset+bytes.flac`."""
    rows: list[dict[str, Any]] = []
    number, clips = 0, {}
    with tarfile.open(path) as tar:
        for member in tar:
            if not member.name.endswith(".json"):
                suffix = PurePosixPath(member.name).suffix
                clips[member.name] = f"{path}{PACKED}{member.offset_data}+{member.size}{suffix}"
                continue
            if start <= number < stop:
                content = tar.extractfile(member)
                value = json.loads(content.read()) if content is not None else {}
                rows.append({**value, "audio": [clips.get(name, name) for name in value.get("audio", ())]})
            number, clips = number + 1, {}
            tar.members = []  # Else the tar remembers all that it has met.
            if number >= stop:
                break
    return rows


PACKED = "#"


def read_packed(name: str) -> bytes:
    """The bytes of a clip inside a tar, named as `shard.tar#offset+bytes.flac`."""
    path, _, place = name.rpartition(PACKED)
    offset, _, size = place.partition("+")
    with open(path, "rb") as file:
        file.seek(int(offset))
        return file.read(int(size.partition(".")[0]))


def _joined(parts: Sequence[Any]) -> Any:
    import pyarrow as arrow

    return arrow.concat_tables(parts)


def row_record(block: Block, place: int) -> Record:
    """
    Raises:
        DataError: if the row is no record.
    """
    if isinstance(block, list):
        return parse_record(block[place], f"row {place}")
    return record_of_columns(block.slice(place, 1).to_pylist()[0], f"row {place}")


def block_ids(block: Block, places: np.ndarray) -> list[str]:
    """Ids of the rows at `places`."""
    if isinstance(block, list):
        return [str(block[place].get("id")) for place in places]
    return block.column("id").take(places).to_pylist()


class StreamMixture:
    """The endless sequence of draws of one process from several sources, each its share: at any time the source that is
    furthest behind is next, so shares are kept to within one draw. Which source is draw n follows from n alone.

    Args:
        weights: the share of a source relative to its rows; with `temperature` T shares are raised to 1/T.
    """

    def __init__(self, streams: Mapping[str, ShardStream], weights: Mapping[str, float], temperature: float = 1.0):
        self.streams = {name: streams[name] for name in sorted(streams)}
        rows = {name: stream.shards.num_rows for name, stream in self.streams.items()}
        shares = {name: weights.get(name, 1.0) * rows[name] for name in rows}
        self.draws_per_epoch = max(1, round(sum(shares.values())))
        flattened = {name: share ** (1 / temperature) for name, share in shares.items()}
        self.shares = {name: share / sum(flattened.values()) for name, share in flattened.items()}
        self.drawn = dict.fromkeys(self.streams, 0)

    def next(self) -> tuple[str, int]:
        """Source and number of the row that is drawn next."""
        total = sum(self.drawn.values()) + 1
        name = max(self.streams, key=lambda name: self.shares[name] * total - self.drawn[name])
        number = self.drawn[name]
        self.drawn[name] += 1
        return name, number

    def state(self) -> dict[str, int]:
        """Rows drawn of each source; all that there is to know."""
        return dict(self.drawn)

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes on where `state` was taken.

        Raises:
            DataError: if it is of other sources.
        """
        if set(state) != set(self.streams):
            raise DataError(f"the stream was over {sorted(state)} and is now over {sorted(self.streams)}.")
        if any(not isinstance(count, int) or count < 0 for count in state.values()):
            raise DataError(f"the stream has no state {dict(state)}: counts of rows are whole numbers from 0.")
        self.drawn = dict(state)


def streamed_sources(recipe: Recipe, stage_index: int) -> list[str]:
    """The sources of a stage that is streamed; none of another.

    Raises:
        DataError: if only some of its sources are streamed, or it asks for what needs all records at once.
    """
    stage = recipe.stages[stage_index]
    names = list(stage.sources or recipe.data.sources)
    streamed = [name for name in names if recipe.data.sources[name].streamed]
    if not streamed:
        return []
    problems = {
        f"sources {sorted(set(names) - set(streamed))} are not streamed": len(streamed) < len(names),
        "max_records": any(recipe.data.sources[name].max_records is not None for name in streamed),
        "objectives beside language_model": set(stage.objective_weights()) != {"language_model"},
        "in_context": stage.in_context > 0,
        "answers: continued": stage.answers == "continued",
        "audio_hours": stage.audio_hours is not None,
        "evaluate_every_steps": stage.evaluate_every_steps is not None,
        "augment.mix_probability": stage.augment is not None and stage.augment.mix_probability > 0,
    }
    found = [name for name, is_met in problems.items() if is_met]
    if found:
        raise DataError(
            f"stage '{stage.name}': reads the streamed sources {streamed}, which nobody holds as a whole. That "
            f"excludes: {', '.join(found)}. Leave it out, or do not stream them (streamed: false)."
        )
    return streamed


def _rng(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
