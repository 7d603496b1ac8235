"""`lalm bench peers`: the same records through ours and through what one would use instead, and the ratios of speed.

For each peer and each number of questions a clip, ours (with the peer's own encoders and audio positions a second) and
the peer are trained for two epochs in turns: pieces of ours are spread between the steps of the peer, so that whatever
else the machine does falls on both. The first epoch is cold: ours reads and encodes every clip in it. A peer does the
same work in every epoch; it is timed on `num_steps` steps of each, every one of which holds each clip once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lalm.bench.children import Side
from lalm.bench.ours import OurRun
from lalm.bench.peer import PeerRun
from lalm.bench.sizes import Audio, Sizes
from lalm.bench.workload import Workload
from lalm.errors import RecipeError, TrainingError

PEERS: tuple[Audio, ...] = ("salmonn", "granite_speech", "qwen2_audio")
WITH_SECOND_ENCODER = {"salmonn"}
HEADLINE_QUESTIONS = 4
"""The ratios that are reported first are at so many questions a clip, where they are measured."""
EPOCHS = ("cold", "warm")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class PeersOptions:
    """What is compared."""

    sizes: Sizes
    questions: tuple[int, ...] = (1, 4, 10)
    num_clips: int = 8
    num_steps: int = 1
    """Steps of a peer in each epoch."""
    peers: tuple[Audio, ...] = PEERS
    clip_seconds: tuple[float, float] = (2.0, 30.0)
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.peers if name not in PEERS]
        if unknown or not self.peers:
            raise RecipeError(f"--peers {','.join(unknown)}: unknown. Accepted: {', '.join(PEERS)}.")
        if min((*self.questions, self.num_clips, self.num_steps), default=0) < 1 or not self.questions:
            raise RecipeError("--questions, --clips and --steps: give whole numbers from 1")


def compare_peers(
    options: PeersOptions, console: Console, keep: Callable[[dict[str, Any]], None] = lambda results: None
) -> dict[str, Any]:
    """Measures, and returns `{"device", "ratios", "rows", ...}`.

    A comparison that fails (a peer that needs more memory than there is) is named under `problems`, and the rest goes
    on. `keep` is given what there is after each comparison.
    """
    headline = headline_questions(options.questions)
    order = [headline, *(count for count in options.questions if count != headline)]
    with Side("matrix_peak", PRECISIONS) as side:
        machine = side.next()
    results: dict[str, Any] = {
        "device": machine["device"],
        "ratio_questions": headline,
        "matrix_flops_per_second": machine["matrix_flops_per_second"],
        "load_average": machine["load_average"],
        "size": options.sizes.name,
        "problems": [],
        "rows": [],
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=_num_peer_steps(options))
        for peer in options.peers:
            precisions: Sequence[str] = PRECISIONS
            for questions in order:
                try:
                    measured = list(_compare(peer, questions, precisions, options, progress, task))
                except TrainingError as error:
                    results["problems"].append(f"{peer}, {questions} questions a clip: {error}")
                    continue
                results["rows"] += measured
                precisions = [fastest(measured, peer, questions)["precision"]]
                results |= _summary(results["rows"], headline, options)
                keep(results)
    return results | _summary(results["rows"], headline, options)


def _summary(rows: Sequence[dict[str, Any]], headline: int, options: PeersOptions) -> dict[str, Any]:
    return {
        "ratios": ratios(rows, headline),
        "ratios_by_questions": {str(count): ratios(rows, count) for count in sorted(options.questions)},
        "memory_ratios": memory_ratios(rows, headline),
    }


def headline_questions(questions: Sequence[int]) -> int:
    """The number of questions a clip that the ratios are given for."""
    return HEADLINE_QUESTIONS if HEADLINE_QUESTIONS in questions else questions[0]


def fastest(rows: Sequence[dict[str, Any]], peer: str, questions: int, epoch: str = "cold") -> dict[str, Any]:
    """The row of a peer in its faster precision."""
    mine = [row for row in rows if (row["system"], row["questions_per_clip"], row["epoch"]) == (peer, questions, epoch)]
    return max(mine, key=lambda row: row["samples_per_second"])


def ratios(rows: Sequence[dict[str, Any]], questions: int) -> dict[str, dict[str, float]]:
    """Peer -> epoch -> how many times the samples a second of the peer's faster precision ours makes."""
    result: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["system"] == "ours" and row["questions_per_clip"] == questions:
            peer = fastest(rows, row["beside"], questions, row["epoch"])
            ratio = row["samples_per_second"] / peer["samples_per_second"]
            result.setdefault(row["beside"], {})[row["epoch"]] = ratio
    return result


def memory_ratios(rows: Sequence[dict[str, Any]], questions: int) -> dict[str, float]:
    """Peer -> our peak memory as a share of the peer's, at equal batch, in the peer's faster precision."""
    ours = {
        row["beside"]: row["peak_memory_bytes"]
        for row in rows
        if row["system"] == "ours" and row["questions_per_clip"] == questions
    }
    return {peer: peak / fastest(rows, peer, questions)["peak_memory_bytes"] for peer, peak in ours.items()}


def _compare(
    peer: Audio, questions: int, precisions: Sequence[str], options: PeersOptions, progress: Progress, task: Any
) -> Iterator[dict[str, Any]]:
    """One row for each system, precision and epoch."""
    workload = Workload(
        num_clips=options.num_clips,
        questions_per_clip=questions,
        clip_seconds=options.clip_seconds,
        seed=options.seed,
    )
    ours_run = OurRun(
        options.sizes,
        workload,
        audio=peer,
        second_encoder=peer in WITH_SECOND_ENCODER,
        batch_records=options.num_clips,
    )
    with ExitStack() as stack:
        ours = stack.enter_context(Side("ours", ours_run))
        theirs = {
            precision: stack.enter_context(
                Side(
                    peer,
                    PeerRun(
                        options.sizes,
                        workload,
                        num_steps=len(EPOCHS) * options.num_steps,
                        batch_records=options.num_clips,
                        autocast=precision == "bfloat16",
                    ),
                )
            )
            for precision in precisions
        }
        used, dtype = list(precisions), ""
        for epoch in EPOCHS:
            num_pieces = questions + (epoch == "cold")
            pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *used)}
            for name in interleaved("ours", num_pieces, used, options.num_steps):
                progress.update(task, description=f"{peer}, {questions} a clip, {epoch}: {name}")
                pieces[name].append((ours if name == "ours" else theirs[name]).next())
                if name != "ours":
                    progress.advance(task)
            facts = {"beside": peer, "questions_per_clip": questions, "epoch": epoch}
            dtype = dtype or pieces["ours"][0]["dtype"]
            yield facts | row_of("ours", dtype, pieces["ours"], ours, workload)
            for name in used:
                yield facts | row_of(peer, name, pieces[name], theirs[name], workload)
            # Only the faster precision is taken through the second epoch.
            used = [max(used, key=lambda name: -sum(piece["seconds"] for piece in pieces[name]))]


def interleaved(first: str, num_first: int, others: Sequence[str], num_each: int) -> Iterator[str]:
    """`num_first` turns of one, spread evenly around `num_each` turns of each of the others.

    `interleaved("a", 5, ["x", "y"], 1)` is a a x a a y a.
    """
    slots = [name for _ in range(num_each) for name in others]
    given = 0
    for number, name in enumerate(slots, start=1):
        due = -(-num_first * number // (len(slots) + 1))
        yield from [first] * (due - given)
        given = due
        yield name
    yield from [first] * (num_first - given)


def row_of(
    system: str, precision: str, pieces: Sequence[dict[str, Any]], side: Side, workload: Workload
) -> dict[str, Any]:
    """One system in one epoch. Preparation counts in the seconds; it trains no records."""
    seconds = sum(piece["seconds"] for piece in pieces)
    records = sum(piece.get("records", 0) for piece in pieces)
    steps = [piece for piece in pieces if piece["kind"] == "step"]
    return {
        "system": system,
        "precision": precision,
        "samples_per_second": records / seconds,
        "records": records,
        "seconds": seconds,
        "prepare_seconds": sum(piece["seconds"] for piece in pieces if piece["kind"] == "prepare"),
        "step_seconds": [piece["seconds"] for piece in steps],
        "losses": [piece["loss"] for piece in steps],
        "peak_memory_bytes": side.peak_memory,
        "num_clips": workload.num_clips,
    }


def _num_peer_steps(options: PeersOptions) -> int:
    """Steps of all peers: the headline's first epoch is run in both precisions."""
    each = len(EPOCHS) * len(options.questions) + len(PRECISIONS) - 1
    return len(options.peers) * options.num_steps * each
