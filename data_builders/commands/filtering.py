"""`lalm data filter`, `dedupe`, `decontaminate`, `register`: a file of records in, the kept ones and the rejects out.

Beside OUT stand OUT's name with `.rejects.jsonl` (each reject with its reason) and `.funnel.json` (the counts).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_builders.commands.errors import one_line_errors
from lalm.tables import print_table, table_console

if TYPE_CHECKING:
    from data_builders.filters.base import Filter, Funnel
    from lalm.data.records import Record

FILTERS = ("phrases", "grounding", "blind", "balance")
_In = Annotated[Path, typer.Argument(help="Records: .jsonl, .parquet or .csv.", metavar="FILE")]
_Out = Annotated[Path, typer.Option("-o", "--out", help="The .jsonl or .parquet for the kept records.")]


def filter_records(
    file: _In,
    out: _Out,
    use: Annotated[str, typer.Option(help=f"Filters in order, separated by commas: {', '.join(FILTERS)}.")] = (
        "phrases,grounding,blind"
    ),
    mark: Annotated[bool, typer.Option(help="Mark what is answered without audio instead of dropping it.")] = False,
    strict: Annotated[bool, typer.Option(help="Reject records without metadata to check against.")] = False,
    blind_model: Annotated[
        Path | None, typer.Option(help="A folder with a causal language model for the blind-answer test.")
    ] = None,
    review: Annotated[
        Path | None, typer.Option(help="A review file of `lalm data view`: what it rejects goes.")
    ] = None,
) -> None:
    """Reject refusals, leaked prompts, invented sounds, questions that need no audio, leading answers."""
    with one_line_errors():
        run_and_write(file, out, chosen_filters(use, mark=mark, strict=strict, blind_model=blind_model, review=review))


def dedupe(
    file: _In,
    out: _Out,
    of: Annotated[str, typer.Option(help="record: same sound asked the same; audio: same sound; text: same words.")] = (
        "record"
    ),
    near: Annotated[bool, typer.Option(help="Also nearly equal sound (gain, codec, shift) and words.")] = True,
) -> None:
    """Reject records whose sound and words came before, exactly or nearly."""
    with one_line_errors():
        from data_builders.filters.duplicates import Duplicates

        run_and_write(file, out, [Duplicates(file.parent, of=of, near=near)])  # type: ignore[arg-type]


def decontaminate(
    file: _In,
    against: Annotated[list[Path], typer.Option(help="A registry of an evaluation set; may be given again.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where to write the clean records, if wanted.")
    ] = None,
) -> None:
    """Look for evaluation sets in a file of records, by id, sound and words. Exits with 1 if anything is found."""
    with one_line_errors():
        from data_builders.filters.contamination import Contamination

        filter_ = Contamination(against, file.parent)
        hits = run_and_write(file, out, [filter_]) if out else look(file, [filter_])
        for hit in hits[:50]:
            typer.secho(hit, fg="red", err=True)
        if hits:
            typer.secho(f"{len(hits)} records touch an evaluation set or could not be checked.", fg="red", err=True)
            raise typer.Exit(1)
        typer.echo(f"{file}: no record touches a registered evaluation set")


def register(
    file: _In,
    name: Annotated[str, typer.Option(help="What the evaluation set is called in reports.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The registry to write (.jsonl).")],
) -> None:
    """Register an evaluation set: ids, fingerprints and hashed words that `decontaminate` looks for."""
    with one_line_errors():
        from data_builders.filters.contamination import register as write_registry
        from lalm.data.records import read_records

        counts = write_registry(read_records(file), file.parent, name, out)
        typer.echo(f"{out}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


def chosen_filters(
    use: str,
    *,
    mark: bool = False,
    strict: bool = False,
    blind_model: Path | None = None,
    review: Path | None = None,
) -> list[Filter]:
    """The filters that a list of names stands for.

    Raises:
        DataError: for a name that is not known.
    """
    from data_builders.filters.answer_cap import AnswerCap
    from data_builders.filters.blind import Blind
    from data_builders.filters.blind_lm import load_local_model
    from data_builders.filters.grounding import Grounding
    from data_builders.filters.phrases_filter import Phrases
    from data_builders.view.review import Reviewed
    from lalm.errors import DataError

    found: list[Filter] = [Reviewed(review)] if review else []
    for name in [part.strip() for part in use.split(",") if part.strip()]:
        if name == "phrases":
            found.append(Phrases())
        elif name == "grounding":
            found.append(Grounding(strict=strict))
        elif name == "blind":
            scorer = load_local_model(blind_model) if blind_model else None
            found.append(Blind(scorer, action="mark" if mark else "drop"))
        elif name == "balance":
            found.append(AnswerCap())
        else:
            raise DataError(f"filter: '{name}' is not known. Accepted: {', '.join(FILTERS)}.")
    return found


def run_and_write(file: Path, out: Path, filters: Sequence[Filter]) -> list[str]:
    """Writes the kept records, the rejects and the funnel, prints the funnel; returns a line for each reject.

    Raises:
        DataError: if `out` is the file itself.
    """
    from data_builders.filters.base import Funnel, Rejects, run_filters
    from lalm.data.records import read_records, write_records
    from lalm.errors import DataError

    if out.resolve() == file.resolve():
        raise DataError(f"{out}: is the file that is read. Name another one; rejects would be lost for good.")
    funnel = Funnel()
    lines: list[str] = []
    with Rejects(out.with_suffix(".rejects.jsonl")) as rejects:

        def reject(name, record, verdict) -> None:
            rejects.add(name, record, verdict)
            lines.append(f"{record.id}: {verdict.reason}: {verdict.note}")

        kept = run_filters(lambda: read_records(file), filters, funnel, reject)
        write_records(out, moved(kept, file.parent, out.parent))
    funnel.save(out.with_suffix(".funnel.json"))
    print_funnel(funnel)
    return lines


def look(file: Path, filters: Sequence[Filter]) -> list[str]:
    """A line for each record that the filters would reject; nothing is written."""
    from data_builders.filters.base import Funnel, run_filters
    from lalm.data.records import read_records

    lines: list[str] = []

    def reject(name: str, record: Record, verdict: Any) -> None:
        lines.append(f"{record.id}: {verdict.reason}: {verdict.note}")

    for _ in run_filters(lambda: read_records(file), filters, Funnel(), reject):
        pass
    return lines


def moved(records: Iterator[Record], folder: Path, new_folder: Path) -> Iterator[Record]:
    """The records with audio paths relative to another folder."""
    if folder.resolve() == new_folder.resolve():
        yield from records
        return
    prefix = os.path.relpath(folder.resolve(), new_folder.resolve())
    for record in records:
        paths = tuple(Path(os.path.normpath(os.path.join(prefix, path))).as_posix() for path in record.audio)
        yield record.model_copy(update={"audio": paths})


def print_funnel(funnel: Funnel) -> None:
    """A table of the funnel, and the blind baseline where it was measured."""
    from rich.table import Table

    table = Table("filter", "entered", "kept", "rejected for")
    for step in funnel.steps:
        reasons = ", ".join(f"{reason} {count}" for reason, count in step.reasons.most_common())
        table.add_row(step.name, str(step.entered), str(step.kept), reasons)
    print_table(table_console(), table)
    if funnel.reports.get("blind"):
        table = Table("task", "closed questions", "right without audio", "chance", "after")
        for task, row in funnel.reports["blind"].items():
            shares = (f"{row[key]:.2f}" for key in ("accuracy", "chance", "accuracy_after"))
            table.add_row(task, str(row["questions"]), *shares)
        print_table(table_console(), table)
