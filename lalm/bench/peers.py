"""`lalm bench peers`: the same records through ours and through what one would use instead, and the ratios of speed.

For each peer and each number of questions a clip, ours (with the peer's own encoders and audio positions a second) and
the peer are trained for two epochs in turns: pieces of ours are spread between the steps of the peer, so that whatever
else the machine does falls on both. The first epoch is cold: ours reads and encodes every clip in it. A peer does the
same work in every epoch; it is timed on `num_steps` steps of each, every one of which holds each clip once.

A peer's precisions are compared one after the other, each beside a run of ours of its own: three sides that hold
memory at once slow one another. The slower precision is left after its first epoch, and out of further comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
PRECISIONS = ("bfloat16", "float32")


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
                measured: list[dict[str, Any]] = []
                for precision in precisions:
                    to_beat = fastest(measured, peer, questions)["samples_per_second"] if measured else 0.0
                    try:
                        measured += _compare(peer, questions, precision, to_beat, options, progress, task)
                    except TrainingError as error:
                        results["problems"].append(f"{peer}, {questions} questions a clip, {precision}: {error}")
                if measured:
                    precisions = [fastest(measured, peer, questions)["precision"]]
                results["rows"] += measured
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
    """Peer -> epoch -> how many times the samples a second of the peer's faster precision ours makes beside it."""
    return {
        peer: {
            epoch: ours["samples_per_second"] / theirs["samples_per_second"] for epoch, (ours, theirs) in epochs.items()
        }
        for peer, epochs in _pairs(rows, questions).items()
    }


def memory_ratios(rows: Sequence[dict[str, Any]], questions: int) -> dict[str, float]:
    """Peer -> our peak memory as a share of the peer's, at equal batch, in the peer's faster precision."""
    last = {peer: [*epochs.values()][-1] for peer, epochs in _pairs(rows, questions).items()}
    return {peer: ours["peak_memory_bytes"] / theirs["peak_memory_bytes"] for peer, (ours, theirs) in last.items()}


def _pairs(
    rows: Sequence[dict[str, Any]], questions: int
) -> dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]]:
    """Peer -> epoch -> (our row, the peer's), of the peer's precision that is faster in that epoch."""
    pairs: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row in rows:
        if row["system"] != "ours" or row["questions_per_clip"] != questions:
            continue
        theirs = fastest(rows, row["beside"], questions, row["epoch"])
        if row["beside_precision"] == theirs["precision"]:
            pairs.setdefault(row["beside"], {})[row["epoch"]] = (row, theirs)
    return pairs


def _compare(
    peer: Audio,
    questions: int,
    precision: str,
    to_beat: float,
    options: PeersOptions,
    progress: Progress,
    task: Any,
) -> Iterator[dict[str, Any]]:
    """A row of ours and one of the peer for each epoch. `to_beat`: samples a second below which the first is enough."""
    workload = Workload(
        num_clips=options.num_clips,
        questions_per_clip=questions,
        clip_seconds=options.clip_seconds,
        seed=options.seed,
    )
    our_run = OurRun(
        options.sizes,
        workload,
        audio=peer,
        second_encoder=peer in WITH_SECOND_ENCODER,
        batch_records=options.num_clips,
    )
    peer_run = PeerRun(
        options.sizes,
        workload,
        num_steps=len(EPOCHS) * options.num_steps,
        batch_records=options.num_clips,
        autocast=precision == "bfloat16",
    )
    dtype = ""
    with Side("ours", our_run) as ours, Side(peer, peer_run) as theirs:
        for epoch in EPOCHS:
            pieces: dict[str, list[dict[str, Any]]] = {"ours": [], peer: []}
            for name in interleaved("ours", questions + (epoch == "cold"), [peer], options.num_steps):
                progress.update(task, description=f"{peer} {precision}, {questions} a clip, {epoch}: {name}")
                pieces[name].append((ours if name == "ours" else theirs).next())
                if name == peer:
                    progress.advance(task)
            facts = {"beside": peer, "questions_per_clip": questions, "epoch": epoch}
            dtype = dtype or pieces["ours"][0]["dtype"]
            yield facts | {"beside_precision": precision} | row_of("ours", dtype, pieces["ours"], ours, workload)
            row = row_of(peer, precision, pieces[peer], theirs, workload)
            yield facts | row
            if row["samples_per_second"] < to_beat:
                return


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
        "compile_seconds": sum(piece.get("compile_seconds", 0.0) for piece in pieces),
        "step_seconds": [piece["seconds"] for piece in steps],
        "losses": [piece["loss"] for piece in steps],
        "peak_memory_bytes": side.peak_memory,
        "num_clips": workload.num_clips,
    }


def _num_peer_steps(options: PeersOptions) -> int:
    """Steps of all peers: the headline's first epoch is run in both precisions."""
    each = len(EPOCHS) * len(options.questions) + len(PRECISIONS) - 1
    return len(options.peers) * options.num_steps * each
