"""`lalm bench`: measures training on invented records with random weights. Downloads nothing, needs no data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lalm.files import write_json
from lalm.tables import print_table, table_console

app = typer.Typer(
    no_args_is_help=True,
    help="Measure training on invented records and random weights: our own, and against what one would use instead.",
)

SizeOption = Annotated[str, typer.Option("--size", help="Shapes: smol, tiny (for tests) or 7b (for a GPU).")]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results there.")]
PlotsOption = Annotated[Path | None, typer.Option("--plots", metavar="FOLDER", help="Draw PNG files there.")]
ClipsOption = Annotated[int, typer.Option("--clips", help="Clips; a step holds as many records.")]
SecondsOption = Annotated[str, typer.Option("--seconds", help="The shortest and the longest clip.")]


@app.command()
def train(
    size: SizeOption = "smol",
    clips: ClipsOption = 8,
    questions: Annotated[int, typer.Option(help="Questions about each clip.")] = 4,
    epochs: Annotated[int, typer.Option(help="The first is cold, the others are warm.")] = 2,
    seconds: SecondsOption = "2-30",
    second_encoder: Annotated[bool, typer.Option(help="Also a BEATs encoder beside Whisper.")] = False,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Positions that a pass may hold: 2048, for 7b 8192.")
    ] = None,
    switches: Annotated[bool, typer.Option(help="Also measure with each switch off.")] = True,
    growth: Annotated[bool, typer.Option(help="Also measure cost against tokens, and the loader's memory.")] = True,
    loader_records: Annotated[
        str, typer.Option(help="Numbers of records of which the loader's memory is measured; 1000000 takes minutes.")
    ] = "10000,30000,100000",
    json_file: JsonOption = None,
    plots: PlotsOption = None,
) -> None:
    """Speed, memory, time by part and share of the machine's fastest matrix product, with each switch on and off."""
    from lalm.bench.plots import draw_training
    from lalm.bench.sizes import find_sizes
    from lalm.bench.tables import bound_line, compile_line, growth_lines, parts_table, training_table
    from lalm.bench.train import TrainOptions, measure_training

    console = table_console()
    options = TrainOptions(
        find_sizes(size),
        questions=questions,
        num_clips=clips,
        epochs=epochs,
        clip_seconds=_range("--seconds", seconds),
        second_encoder=second_encoder,
        micro_batch_tokens=tokens,
        cases=switches,
        **({"loader_records": _whole_numbers("--loader-records", loader_records)} if growth else _NO_GROWTH),
    )
    results = measure_training(options, console, keep=lambda so_far: _write(so_far, json_file))
    print_table(console, training_table(results))
    print_table(console, parts_table(results))
    peaks = ", ".join(f"{name} {peak / 1e9:,.0f}" for name, peak in results["matrix_flops_per_second"].items())
    lines = [f"{results['device']}; matrix products, GFLOP/s: {peaks}", bound_line(results), *growth_lines(results)]
    lines += compile_line(results["cases"])
    if results["datasheet_flops_per_second"]:
        mfu = ", ".join(f"{case['case']} {case['warm']['mfu']:.1%}" for case in results["cases"])
        lines.append(f"MFU, warm, of {results['datasheet_flops_per_second'] / 1e12:,.0f} TFLOP/s: {mfu}")
    if results["gpu"]:
        lines.append(f"MFU on a GPU is not measured: {results['gpu']}.")
    for line in lines:
        console.print(line, highlight=False)
    _keep(results, json_file, plots, draw_training, console)


@app.command()
def peers(
    size: SizeOption = "smol",
    questions: Annotated[str, typer.Option(help="Questions about each clip: one number or several.")] = "1,4,10",
    clips: ClipsOption = 8,
    steps: Annotated[int, typer.Option(help="Steps of a peer that are timed in each epoch.")] = 1,
    peers: Annotated[str, typer.Option(help="Whom to compare with.")] = "salmonn,granite_speech,qwen2_audio",
    seconds: SecondsOption = "2-30",
    json_file: JsonOption = None,
    plots: PlotsOption = None,
) -> None:
    """The same records through a SALMONN-style step, Granite Speech and Qwen2-Audio: ratios of speed and memory."""
    from lalm.bench.peers import PeersOptions, compare_peers
    from lalm.bench.plots import draw_peers
    from lalm.bench.sizes import find_sizes
    from lalm.bench.tables import compile_line, peers_table, ratio_lines

    console = table_console()
    options = PeersOptions(
        find_sizes(size),
        questions=_whole_numbers("--questions", questions),
        num_clips=clips,
        num_steps=steps,
        peers=tuple(name.strip() for name in peers.split(",") if name.strip()),  # type: ignore[misc]
        clip_seconds=_range("--seconds", seconds),
    )
    results = compare_peers(options, console, keep=lambda so_far: _write(so_far, json_file))
    print_table(console, peers_table(results))
    for line in (results["device"], *ratio_lines(results), *compile_line(results["rows"])):
        console.print(line, highlight=False)
    _keep(results, json_file, plots, draw_peers, console)
    for problem in results["problems"]:
        console.print(f"Not measured: {problem}", style="yellow", highlight=False)
    if results["problems"]:
        raise typer.Exit(1)


@app.command()
def loader(
    size: SizeOption = "tiny",
    held: Annotated[
        str, typer.Option(help="Numbers of records of stages that are built; a million takes some minutes.")
    ] = "10000,100000",
    streamed: Annotated[str, typer.Option(help="Numbers of records of streams.")] = "10000,100000,1000000,10000000",
    ranks: Annotated[int, typer.Option(help="Processes that share a stream; played one after the other.")] = 64,
    json_file: JsonOption = None,
    plots: PlotsOption = None,
) -> None:
    """The loader's memory as records grow, and a dry run of a stream by many processes: balanced, apart, resumable."""
    from lalm.bench.loader import measure_loader
    from lalm.bench.plots import draw_loader
    from lalm.bench.sizes import find_sizes
    from lalm.bench.tables import loader_table, stream_lines

    console = table_console()
    counts = _whole_numbers("--held", held), _whole_numbers("--streamed", streamed)
    results = measure_loader(find_sizes(size), *counts, ranks, lambda line: console.print(line, highlight=False))
    print_table(console, loader_table(results))
    for line in stream_lines(results):
        console.print(line, highlight=False)
    _keep(results, json_file, plots, draw_loader, console)


_NO_GROWTH: dict[str, Any] = {"answer_chars": (), "loader_records": ()}


def _keep(results: dict[str, Any], json_file: Path | None, plots: Path | None, draw: Any, console: Any) -> None:
    written = []
    if json_file is not None:
        _write(results, json_file)
        written.append(json_file)
    if plots is not None:
        written += draw(results, plots)
    for path in written:
        console.print(f"Wrote {path}", highlight=False)


def _write(results: dict[str, Any], json_file: Path | None) -> None:
    if json_file is not None:
        write_json(json_file, results)


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    from lalm.errors import RecipeError

    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise RecipeError(f"{option} {text!r}: give one or several whole numbers from 1, such as 1,4,10")
    return numbers


def _range(option: str, text: str) -> tuple[float, float]:
    from lalm.errors import RecipeError

    low, _, high = text.partition("-")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = 0.0, 0.0
    if not 0.1 <= bounds[0] <= bounds[1] <= 30:
        raise RecipeError(f"{option} {text!r}: give two lengths between 0.1 and 30, such as 2-30")
    return bounds
