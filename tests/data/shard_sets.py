"""Small sharded sets, written as `lalm data export-to-shards` does."""

from __future__ import annotations

from pathlib import Path

from tiny_data import make_record, write_clip

from data_builders.row_sources import MadeRows
from data_builders.shards import write_shards


def write_set(folder: Path, count: int, *, form="parquet", rows_per_shard=10, prefix="r", **more) -> Path:
    """`count` records over four clips, which lie in the folder `data` beside the shards."""
    data = folder.parent / "data"
    for number in range(4):
        if not (data / f"clips/{number}.wav").is_file():
            write_clip(data / f"clips/{number}.wav", 0.3 + 0.2 * number, seed=number)

    def made(number: int):
        answer = f"answer {number}" + " long" * (number % 5)
        return make_record(f"{prefix}{number}", [f"clips/{number % 4}.wav"], f"what {number}?", answer, **more)

    write_shards(
        MadeRows(f"{prefix}{more}", count, made), folder, form=form, rows_per_shard=rows_per_shard, audio_root=data
    )
    return folder
