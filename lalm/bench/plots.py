"""PNG files of a measurement: speed by switch, time by part, and the two growth curves."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEBIBYTE = 2**20


def draw_training(results: dict[str, Any], folder: Path) -> list[Path]:
    """Plots of `measure_training`'s results; none where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_draw_cases(results["cases"], folder / "bench-switches.png")]
    drawn.append(_draw_parts(results["cases"], folder / "bench-parts.png"))
    if results["cost_by_tokens"]:
        drawn.append(_draw_cost(results, folder / "bench-cost.png"))
    if results["loader_memory"]:
        drawn.append(_draw_memory(results["loader_memory"], folder / "bench-loader-memory.png"))
    return drawn


def draw_peers(results: dict[str, Any], folder: Path) -> list[Path]:
    """Samples a second of ours and of each peer, by questions a clip; none where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = _figure()
    peers = list(results["ratios"])
    for place, peer in enumerate(peers):
        measured = {int(count): by[peer] for count, by in results["ratios_by_questions"].items() if peer in by}
        for epoch, style in (("cold", "--"), ("warm", "-")):
            axes.plot(
                [*measured],
                [by[epoch] for by in measured.values()],
                style,
                marker="o",
                color=f"C{place}",
                label=f"{peer}, {epoch}",
            )
    axes.set_xlabel("questions a clip")
    axes.set_ylabel("samples a second, ours over theirs")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return [_save(figure, folder / "bench-peers.png")]


def draw_loader(results: dict[str, Any], folder: Path) -> list[Path]:
    """Memory over records, by number and in a stream; none where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = _figure()
    names = {"held": "read by number", "streamed": f"stream of {results['ranks']} processes"}
    for place, (kind, name) in enumerate(names.items()):
        rows = results[kind]
        counts = [row["num_records"] for row in rows]
        for key, style, what in (("loader_peak_bytes", "o-", "at most"), ("loader_bytes", "o--", "kept")):
            axes.plot(counts, [row[key] / MEBIBYTE for row in rows], style, color=f"C{place}", label=f"{name}, {what}")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("records")
    axes.set_ylabel("MiB allocated")
    axes.legend(frameon=False)
    return [_save(figure, folder / "bench-loader.png")]


def _draw_cases(cases: list[dict[str, Any]], image: Path) -> Path:
    figure, axes = _figure()
    names = [case["case"] for case in cases]
    for number, epoch in enumerate(("cold", "warm")):
        places = [place + 0.4 * number for place in range(len(cases))]
        axes.barh(places, [case[epoch]["samples_per_second"] for case in cases], height=0.38, label=epoch)
    axes.set_yticks([place + 0.2 for place in range(len(cases))], names)
    axes.invert_yaxis()
    axes.set_xlabel("samples a second")
    axes.legend(frameon=False)
    return _save(figure, image)


def _draw_parts(cases: list[dict[str, Any]], image: Path) -> Path:
    figure, axes = _figure()
    left = [0.0] * len(cases)
    names = [case["case"] for case in cases]
    for number, part in enumerate(cases[0]["warm"]["parts"]):
        widths = [case["warm"]["parts"][part] / case["warm"]["epochs"] for case in cases]
        axes.barh(names, widths, left=left, label=part, color=f"C{number}")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a warm epoch")
    axes.legend(frameon=False, fontsize="small", ncols=3)
    return _save(figure, image)


def _draw_cost(results: dict[str, Any], image: Path) -> Path:
    figure, axes = _figure()
    rows, line = results["cost_by_tokens"], results["cost_line"]
    tokens = [row["useful_tokens_per_sample"] for row in rows]
    axes.plot(tokens, [row["seconds_per_sample"] for row in rows], "o", label="measured")
    if line is not None:
        fitted = [line["seconds_at_zero"] + line["seconds_per_token"] * count for count in tokens]
        axes.plot(tokens, fitted, "-", label=f"line, $R^2$ {line['r_squared']:.3f}")
    axes.set_xlabel("useful tokens a sample")
    axes.set_ylabel("seconds a sample, warm")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _save(figure, image)


def _draw_memory(rows: list[dict[str, Any]], image: Path) -> Path:
    figure, axes = _figure()
    counts = [row["num_records"] for row in rows]
    axes.plot(counts, [row["loader_bytes"] / MEBIBYTE for row in rows], "o-", label="the stage's records")
    axes.plot(counts, [row["process_peak_bytes"] / MEBIBYTE for row in rows], "o--", label="peak of the process")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("records")
    axes.set_ylabel("MiB")
    axes.legend(frameon=False)
    return _save(figure, image)


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    return figure, axes


def _save(figure: Figure, image: Path) -> Path:
    temporary = image.with_name(f".{image.stem}.tmp.png")
    figure.savefig(temporary, dpi=120)
    os.replace(temporary, image)
    return image
