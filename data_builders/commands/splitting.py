"""`lalm data split`: train, validation and test by groups, with a ledger that keeps old clips where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_builders.commands.errors import one_line_errors

LEDGER = "split.ledger.json"


def split(
    file: Annotated[Path, typer.Argument(help="Records: .jsonl, .parquet or .csv.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for train, validation and test.")],
    validation: Annotated[float, typer.Option(help="Share of the groups, 0 to 1.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share of the groups, 0 to 1.")] = 0.05,
    by: Annotated[str, typer.Option(help="Keys of a record that no split may tear, coarse to fine.")] = (
        "speaker,session,clip"
    ),
    seed: Annotated[int, typer.Option(help="The same seed gives the same sides.")] = 0,
) -> None:
    """Split by groups: no clip, speaker or session on two sides; a ledger in OUT keeps old clips when data is added."""
    with one_line_errors():
        from data_builders.clips import SPLITS
        from data_builders.commands.filtering import moved, print_funnel
        from data_builders.filters.base import Funnel, Rejects, run_filters
        from data_builders.filters.grouping import GroupSplit, load_ledger, save_ledger
        from lalm.data.records import read_records, write_records

        ledger = load_ledger(out / LEDGER) if (out / LEDGER).is_file() else None
        keys = [key.strip() for key in by.split(",") if key.strip()]
        shares = {"train": 1 - validation - test, "validation": validation, "test": test}
        splitter = GroupSplit(shares=shares, group_by=keys, seed=seed, ledger=ledger)  # type: ignore[arg-type]
        splitter.prepare(read_records(file))
        for side in SPLITS:
            mine = (
                record.model_copy(update={"split": side})
                for record in read_records(file)
                if splitter.judge(record).kept and splitter.side_of(record) == side
            )
            count = write_records(out / f"{side}.jsonl", moved(mine, file.parent, out))
            typer.echo(f"{out / side}.jsonl: {count} records")
        funnel = Funnel()
        with Rejects(out / "split.rejects.jsonl") as rejects:
            for _ in run_filters(lambda: read_records(file), [_Settled(splitter)], funnel, rejects.add):
                pass
        save_ledger(out / LEDGER, splitter.ledger(), seed)
        print_funnel(funnel)


class _Settled:
    """A split that was prepared, seen as a filter: names the records that stand on no side."""

    name = "split"

    def __init__(self, splitter):
        self.judge = splitter.judge
