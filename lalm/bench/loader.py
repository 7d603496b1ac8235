"""`lalm bench loader`: what a loader costs as the records grow, and a dry run of a stream by many processes.

Every size runs in a process of its own. Of records that are read by number, a stage is built (index, token ids,
lengths, plan) and some of its micro-batches are made. Of a stream, every process of one pass is played, one after the
other: each reads all its rows; then it is stopped at some row, built anew from its state as JSON, and must go on with
the same rows.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lalm.bench.children import Side
from lalm.bench.growth import LoaderRun
from lalm.bench.machine import AllocatedPeak, device_name
from lalm.bench.ours import Pace
from lalm.bench.sizes import Sizes
from lalm.data.records import Record
from lalm.data.shards import FORMAT, MANIFEST, ShardStream, StreamMixture, open_shards
from lalm.errors import RecipeError

ROWS_PER_SHARD = 100_000
ROWS_PER_GROUP = 5_000
BLOCK = 1000
"""Ids that are compared at a time."""
ROWS_CHECKED = 50
"""Rows of each process that are read as records, and that are compared after a resume."""


@dataclass(frozen=True)
class StreamRun:
    """A dry run of `num_ranks` processes over the `num_records` invented records in `folder`."""

    folder: Path
    num_records: int
    num_ranks: int
    shuffle_rows: int = 10_000
    seed: int = 0


def measure_loader(
    sizes: Sizes, held: Sequence[int], streamed: Sequence[int], num_ranks: int, tell: Any = lambda line: None
) -> dict[str, Any]:
    """Runs every size: `held` are numbers of records that are read by number, `streamed` of those in a stream.

    Raises:
        RecipeError: if a stream has fewer records than processes.
    """
    if num_ranks < 1 or any(count < num_ranks for count in streamed):
        raise RecipeError(f"--ranks {num_ranks}: a stream needs at least a record for each, and at least one process")
    found: dict[str, Any] = {"device": device_name(), "ranks": num_ranks, "held": [], "streamed": []}
    for count in held:
        tell(f"{count:,} records by number")
        with Side("loader", LoaderRun(sizes, count)) as side:
            found["held"].append(side.next())
    for count in streamed:
        tell(f"{count:,} records in a stream of {num_ranks}")
        with tempfile.TemporaryDirectory(prefix="lalm-bench-") as name:
            write_invented_shards(Path(name), count)
            with Side("stream", StreamRun(Path(name), count, num_ranks)) as side:
                found["streamed"].append(side.next())
    return found


def run_stream(run: StreamRun, pace: Pace) -> None:
    """Plays all processes of one pass in a fresh process, and reports what they read and what it took."""
    seen = np.zeros(run.num_records, np.uint8)
    seen[:] = 0  # Takes the memory now.
    rows, resumed, state_bytes = [], 0, 0
    random = np.random.default_rng(run.seed)
    shards = open_shards(run.folder)
    _stream(run, shards, 0).row(0)  # Loads the reader of Parquet.
    pace.wait()
    started = time.perf_counter()
    with AllocatedPeak() as memory:
        for rank in range(run.num_ranks):
            stream = _stream(run, shards, rank)
            rows.append(stream.rows_per_pass)
            for first in range(0, stream.rows_per_pass, BLOCK):
                names = stream.ids(first, min(BLOCK, stream.rows_per_pass - first))
                np.add.at(seen, [int(name[1:]) for name in names], 1)
            same, size = _goes_on(run, shards, rank, int(random.integers(2 * stream.rows_per_pass)))
            resumed, state_bytes = resumed + same, max(state_bytes, size)
    pace.done(
        {
            "num_records": run.num_records,
            "num_ranks": run.num_ranks,
            "shuffle_rows": run.shuffle_rows,
            "shards": len(shards.names),
            "rows_least": min(rows),
            "rows_most": max(rows),
            "rows_never_read": int((seen == 0).sum()),
            "rows_read_twice": int((seen > 1).sum()),
            "ranks_resumed": resumed,
            "state_bytes": state_bytes,
            "loader_bytes": memory.kept_bytes,
            "loader_peak_bytes": memory.grown_bytes,
            "seconds": time.perf_counter() - started,
        }
    )


def _stream(run: StreamRun, shards: Any, rank: int) -> ShardStream:
    return ShardStream(shards, rank=rank, world_size=run.num_ranks, seed=run.seed, shuffle_rows=run.shuffle_rows)


def _goes_on(run: StreamRun, shards: Any, rank: int, stop: int) -> tuple[bool, int]:
    """Whether a process that is stopped after `stop` rows goes on with the rows that one without a stop reads, and the
    bytes of its state."""
    whole = StreamMixture({"set": _stream(run, shards, rank)}, {})
    whole.restore({"set": stop})
    state = json.dumps(whole.state())
    after = StreamMixture({"set": _stream(run, shards, rank)}, {})
    after.restore(json.loads(state))
    wanted = whole.streams["set"].ids(stop, ROWS_CHECKED)
    found = []
    for _ in range(ROWS_CHECKED):
        source, number = after.next()
        found.append(after.streams[source].row(number).id)
    return found == wanted, len(state)


def write_invented_shards(folder: Path, num_records: int) -> None:
    """Parquet shards with manifest, as `lalm data export-to-shards` lays them out; record n has the id `rn`."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    turn = arrow.struct([("role", arrow.string()), ("content", arrow.string())])
    kinds = {"audio": arrow.list_(arrow.string()), "turns": arrow.list_(turn), "choices": arrow.list_(arrow.string())}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in Record.model_fields])
    texts = {"task": "qa", "answer_type": "open", "source": "bench", "split": "train", "licence": ""}
    texts |= {"provenance": "{}", "meta": "{}"}
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(0, num_records, ROWS_PER_SHARD):
        count = min(ROWS_PER_SHARD, num_records - first)
        numbers = [str(number) for number in range(first, first + count)]
        said = [text for number in numbers for text in (f"What is heard in clip {number}?", f"Sound {number[-3:]}.")]
        spoken = arrow.StructArray.from_arrays(
            [arrow.array(["user", "assistant"] * count), arrow.array(said)], fields=list(turn)
        )
        columns = {
            "id": arrow.array([f"r{number}" for number in numbers]),
            "audio": arrow.ListArray.from_arrays(
                np.arange(count + 1, dtype=np.int32), arrow.array([f"clips/{number}.flac" for number in numbers])
            ),
            "turns": arrow.ListArray.from_arrays(np.arange(0, 2 * count + 1, 2, dtype=np.int32), spoken),
            "choices": arrow.nulls(count, kinds["choices"]),
            **{name: arrow.repeat(text, count) for name, text in texts.items()},
        }
        path = folder / f"shard-{len(shards):05d}.parquet"
        table = arrow.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
        parquet.write_table(table, path, compression="zstd", row_group_size=ROWS_PER_GROUP)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        shards.append({"name": path.name, "rows": count, "bytes": path.stat().st_size, "sha256": digest})
    manifest = {"request": {"format": FORMAT, "form": "parquet", "rows": num_records}, "shards": shards}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
