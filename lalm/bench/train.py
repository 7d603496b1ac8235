"""`lalm bench train`: how fast our training is, where its time goes, and what each of its four switches is worth.

Every case runs in a process of its own, for a cold epoch (every clip is read and encoded) and warm ones.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lalm.bench.bound import bound_of, products_of
from lalm.bench.children import Side
from lalm.bench.growth import LoaderRun, fit_line, growth_rows
from lalm.bench.ours import OurRun
from lalm.bench.parts import PARTS
from lalm.bench.sizes import Audio, Sizes, Switches
from lalm.bench.workload import Workload
from lalm.errors import RecipeError

GROWTH_EPOCHS = 5
"""Epochs of the runs from which cost against tokens is drawn: the fastest of the warm ones counts, which other jobs on
the machine disturbed least."""
GPU_NOTE = (
    "no GPU here: the same figures with MFU of a 7B decoder come from `lalm bench train --size 7b` on a machine that "
    "has one"
)


@dataclass(frozen=True)
class TrainOptions:
    """What is measured."""

    sizes: Sizes
    questions: int = 4
    num_clips: int = 8
    epochs: int = 2
    """The first is cold; the others are warm."""
    second_encoder: bool = False
    audio: Audio = "salmonn"
    clip_seconds: tuple[float, float] = (2.0, 30.0)
    micro_batch_tokens: int | None = None
    """Of the sizes, if not given."""
    cases: bool = True
    """Whether each switch is also measured off; else only the case with all of them on."""
    answer_chars: tuple[int, ...] = (16, 48, 96, 192)
    """Answers of the runs from which cost against useful tokens is drawn; none of them if empty."""
    loader_records: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Records of which the loader's memory is measured."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.questions, self.num_clips) < 1 or self.epochs < 2:
            raise RecipeError("--questions and --clips: give whole numbers from 1; --epochs: from 2")


def measure_training(
    options: TrainOptions, console: Console, keep: Callable[[dict[str, Any]], None] = lambda results: None
) -> dict[str, Any]:
    """Measures everything that `options` name. `keep` is given what there is after each run."""
    cases = switch_cases() if options.cases else {"all on": Switches()}
    total = 3 + len(cases) + len(options.answer_chars) + len(options.loader_records)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("matrix products", total=total)
        found = _Found(options, [_matrix_peak()])

        def next_run(description: str) -> None:
            keep(found.results())
            progress.advance(task)
            progress.update(task, description=description)

        for name, switches in cases.items():
            next_run(name)
            found.cases.append({"case": name} | measure_case(_run(options, switches)))
        next_run("linear layers alone")
        products = products_of(_run(options, Switches()), found.cases[0]["warm"], found.cases[0]["dtype"])
        with Side("products", products) as side:
            found.products = side.next()
        for chars in options.answer_chars:
            next_run(f"answers of {chars}")
            run = _run(options, Switches())
            workload = replace(run.workload, answer_chars=(chars, chars))
            run = replace(run, workload=workload, epochs=max(run.epochs, GROWTH_EPOCHS))
            found.lengths.append({"answer_chars": chars} | measure_case(run))
        for count in options.loader_records:
            next_run(f"{count:,} records")
            with Side("loader", LoaderRun(options.sizes, count)) as side:
                found.loads.append(side.next())
        # The machine may have been busier at first: the better of two is nearer to what it can do.
        next_run("matrix products")
        found.machines.append(_matrix_peak())
        progress.advance(task)
    return found.results()


@dataclass
class _Found:
    """What was measured so far."""

    options: TrainOptions
    machines: list[dict[str, Any]]
    cases: list[dict[str, Any]] = field(default_factory=list)
    products: dict[str, Any] | None = None
    lengths: list[dict[str, Any]] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)

    def results(self) -> dict[str, Any]:
        options, machine = self.options, self.machines[0]
        peaks: dict[str, float] = {}
        for found in self.machines:
            for dtype, peak in found["matrix_flops_per_second"].items():
                peaks[dtype] = max(peak, peaks.get(dtype, 0.0))
        for row in (*self.cases, *self.lengths):
            add_shares(row, peaks, machine["datasheet_flops_per_second"])
        results = {
            "device": machine["device"],
            "gpu": None if machine["has_gpu"] else GPU_NOTE,
            "matrix_flops_per_second": peaks,
            "datasheet_flops_per_second": machine["datasheet_flops_per_second"],
            "load_average": machine["load_average"],
            "options": asdict(options),
            "cases": self.cases,
            "cost_by_tokens": growth_rows(self.lengths),
            "cost_line": fit_line(growth_rows(self.lengths)),
            "loader_memory": self.loads,
        }
        if self.products is not None:
            first, num_records = self.cases[0], options.num_clips * options.questions
            results["bound"] = bound_of(self.products, first["warm"], num_records, peaks[first["dtype"]])
        return results


def switch_cases() -> dict[str, Switches]:
    """All on, each of them off alone, all off."""
    return {
        "all on": Switches(),
        "no state cache": Switches(state_cache=False),
        "30 s padding": Switches(real_lengths=False),
        "one a row": Switches(shared_prefix=False),
        "all logits": Switches(supervised_only=False),
        "layers not compiled": Switches(compiled=False),
        "all off": Switches(**dict.fromkeys((switch.name for switch in fields(Switches)), False)),
    }


def measure_case(run: OurRun) -> dict[str, Any]:
    """One run of ours in a process of its own."""
    with Side("ours", run) as side:
        pieces = [side.next() for _ in range(1 + run.epochs * run.steps_per_epoch)]
    return {"switches": asdict(run.switches), "peak_memory_bytes": side.peak_memory} | summarize(run, pieces)


def summarize(run: OurRun, pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one run from its pieces: the preparation, then the steps of all epochs."""
    prepared, steps = pieces[0], list(pieces[1:])
    first, later = steps[: run.steps_per_epoch], steps[run.steps_per_epoch :]
    share = sum(piece["records"] for piece in later) / prepared["num_records"]
    epochs = [later[start : start + run.steps_per_epoch] for start in range(0, len(later), run.steps_per_epoch)]
    fastest = min(
        sum(piece["seconds"] for piece in epoch) / sum(piece["records"] for piece in epoch) for epoch in epochs
    )
    flops = sum(part["forward"] + part["backward"] for part in prepared["flops"].values())
    return {
        "dtype": prepared["dtype"],
        "compile_seconds": prepared["compile_seconds"],
        "cold": _epoch([prepared, *first], prepared, flops + prepared["encoder_flops"], 1.0),
        "warm": _epoch(later, prepared, flops, share),
        "fastest_warm_seconds_per_sample": fastest,
        "useful_flops": prepared["flops"] | {"encoder": prepared["encoder_flops"]},
        "useful_tokens_per_record": prepared["useful_tokens"] / prepared["num_records"],
        "losses": [piece["loss"] for piece in steps],
    }


def add_shares(row: dict[str, Any], peaks: dict[str, float], datasheet: float | None = None) -> None:
    """Useful operations against the fastest matrix product in the type that the weights are held in, and against what a
    GPU's maker prints (`mfu`)."""
    peak = peaks[row["dtype"]]
    for epoch in ("cold", "warm"):
        row[epoch]["share_of_peak"] = row[epoch]["useful_flops_per_second"] / peak
        if datasheet is not None:
            row[epoch]["mfu"] = row[epoch]["useful_flops_per_second"] / datasheet
    warm, flops = row["warm"], row["useful_flops"]
    seconds, epochs = warm["parts"], warm["epochs"]
    needed = {
        "projector": flops["projector"]["forward"] + flops["projector"]["backward"],
        "lm_forward": flops["decoder"]["forward"],
        "lm_backward": flops["decoder"]["backward"],
        "loss": flops["head"]["forward"] + flops["head"]["backward"],
    }
    warm["parts_share_of_peak"] = {
        part: epochs * amount / seconds[part] / peak for part, amount in needed.items() if seconds[part]
    }


def _epoch(
    pieces: Sequence[dict[str, Any]], prepared: dict[str, Any], useful_flops: float, epochs: float
) -> dict[str, Any]:
    """`useful_flops` of one epoch; `epochs`: how many the pieces make up."""
    seconds = sum(piece["seconds"] for piece in pieces)
    parts, work = Counter[str](), Counter[str]()
    for piece in pieces:
        parts.update(piece["parts"])
        work.update(piece["work"])
    in_parts = {name: parts[name] for name in PARTS}
    steps = [piece["seconds"] for piece in pieces if piece["kind"] == "step"]
    return {
        "seconds": seconds,
        "epochs": epochs,
        "prepare_seconds": sum(piece["seconds"] for piece in pieces if piece["kind"] == "prepare"),
        "median_step_seconds": statistics.median(steps),
        "samples_per_second": sum(piece.get("records", 0) for piece in pieces) / seconds,
        "audio_seconds_per_second": epochs * prepared["audio_seconds"] / seconds,
        "useful_tokens_per_second": epochs * prepared["useful_tokens"] / seconds,
        "useful_flops_per_second": epochs * useful_flops / seconds,
        # While clips are encoded, the next are read in a thread beside it: parts may add up to more than the whole.
        "parts": in_parts | {"other": max(0.0, seconds - sum(in_parts.values()))},
        "work": dict(work),
    }


def _run(options: TrainOptions, switches: Switches) -> OurRun:
    workload = Workload(
        num_clips=options.num_clips,
        questions_per_clip=options.questions,
        clip_seconds=options.clip_seconds,
        seed=options.seed,
    )
    return OurRun(
        options.sizes,
        workload,
        audio=options.audio,
        second_encoder=options.second_encoder,
        switches=switches,
        batch_records=options.num_clips,
        epochs=options.epochs,
        micro_batch_tokens=options.micro_batch_tokens or options.sizes.micro_batch_tokens,
    )


def _matrix_peak() -> dict[str, Any]:
    with Side("matrix_peak", ("float32", "bfloat16")) as side:
        return side.next()
