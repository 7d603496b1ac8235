"""What a measurement prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

MEBIBYTE = 2**20


def training_table(results: dict[str, Any]) -> Table:
    """Speed, memory and share of the peak of each case."""
    table = Table(title="Training, switches on and off", title_justify="left")
    table.add_column("case", no_wrap=True)
    for name in (
        *("samples/s cold", "samples/s warm", "audio-s/s warm", "useful tokens/s warm"),
        *("share of GEMM peak", "peak MiB", "encoder steps", "positions", "logit rows"),
    ):
        table.add_column(name, justify="right")
    for case in results["cases"]:
        cold, warm = case["cold"], case["warm"]
        work = {name: cold["work"].get(name, 0) + warm["work"].get(name, 0) for name in WORK}
        table.add_row(
            case["case"],
            f"{cold['samples_per_second']:.2f}",
            f"{warm['samples_per_second']:.2f}",
            f"{warm['audio_seconds_per_second']:.1f}",
            f"{warm['useful_tokens_per_second']:.0f}",
            f"{warm['share_of_peak']:.1%}",
            f"{case['peak_memory_bytes'] / MEBIBYTE:,.0f}",
            *(f"{work[name]:,}" for name in WORK),
        )
    return table


WORK = ("encoder_steps", "decoder_positions", "logit_rows")


def parts_table(results: dict[str, Any]) -> Table:
    """Seconds of an epoch by part, for each case: cold + warm."""
    table = Table(title="Seconds of an epoch by part, warm (first epoch in brackets)", title_justify="left")
    table.add_column("case", no_wrap=True)
    parts = list(results["cases"][0]["warm"]["parts"])
    for part in parts:
        table.add_column(part, justify="right")
    for case in results["cases"]:
        warm, cold = case["warm"], case["cold"]
        cells = (f"{warm['parts'][part] / warm['epochs']:.2f} ({cold['parts'][part]:.2f})" for part in parts)
        table.add_row(case["case"], *cells)
    return table


def compile_line(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What compiling the decoder's layers took, of the cases or sides that did so; none where none did."""
    seconds = [row["compile_seconds"] for row in rows if row["compile_seconds"]]
    if not seconds:
        return []
    return [f"Compiling the decoder's layers took {min(seconds):.0f} to {max(seconds):.0f} s, counted nowhere above."]


def bound_line(results: dict[str, Any]) -> str:
    """What the decoder's linear layers would allow if nothing else took time."""
    bound = results["bound"]
    return (
        f"The decoder's linear layers alone would make {bound['samples_per_second']:.1f} samples/s, "
        f"{bound['share_of_peak']:.0%} of the peak: matrices of their shapes reach "
        f"{bound['product_flops_per_second'] / 1e9:,.0f} GFLOP/s here. They are {bound['share_of_epoch']:.0%} of an "
        "epoch."
    )


def growth_lines(results: dict[str, Any]) -> list[str]:
    """The two growth measurements, a line each."""
    lines = []
    if line := results["cost_line"]:
        lines.append(
            f"Cost of a sample: {line['seconds_at_zero']:.4f} s + {line['seconds_per_token'] * 1000:.3f} ms for each "
            f"useful token (R squared {line['r_squared']:.3f})"
        )
    for row in results["loader_memory"]:
        lines.append(
            f"Loader: {row['num_records']:,} records take {row['loader_bytes'] / MEBIBYTE:,.0f} MiB "
            f"({row['loader_bytes'] / row['num_records']:,.0f} bytes each), built in {row['seconds']:.1f} s"
        )
    return lines


def loader_table(results: dict[str, Any]) -> Table:
    """Memory that a loader allocates, by records."""
    table = Table(title="The loader's memory", title_justify="left")
    for name in ("records", "read", "at most MiB", "kept MiB", "seconds"):
        table.add_column(name, justify="left" if name == "read" else "right")
    for kind, name in (("held", "by number"), ("streamed", f"stream of {results['ranks']}")):
        for row in results[kind]:
            sizes = (f"{row[key] / MEBIBYTE:,.1f}" for key in ("loader_peak_bytes", "loader_bytes"))
            table.add_row(f"{row['num_records']:,}", name, *sizes, f"{row['seconds']:.0f}")
    return table


def stream_lines(results: dict[str, Any]) -> list[str]:
    """How the processes of each stream shared it."""
    return [
        f"{row['num_records']:,} records, {row['shards']} shards, {row['num_ranks']} processes: "
        f"{row['rows_least']:,} to {row['rows_most']:,} rows each, {row['rows_never_read']} rows never read, "
        f"{row['rows_read_twice']} read twice; {row['ranks_resumed']} of {row['num_ranks']} go on exactly from a state "
        f"of {row['state_bytes']} bytes"
        for row in results["streamed"]
    ]


def peers_table(results: dict[str, Any]) -> Table:
    """Every row, with the ratio to ours beside a peer's."""
    table = Table(title="Samples a second, ours and theirs", title_justify="left")
    for name in ("beside", "questions a clip", "epoch", "system", "precision"):
        table.add_column(name)
    for name in ("samples/s", "seconds", "peak MiB", "ours is faster by"):
        table.add_column(name, justify="right")
    ours: dict[str, float] = {}
    for row in results["rows"]:
        if row["system"] == "ours":
            ours[row["epoch"]] = row["samples_per_second"]
            table.add_section()
        faster = "" if row["system"] == "ours" else f"{ours[row['epoch']] / row['samples_per_second']:.1f}x"
        table.add_row(
            row["beside"],
            str(row["questions_per_clip"]),
            row["epoch"],
            row["system"],
            row["precision"],
            f"{row['samples_per_second']:.3f}",
            f"{row['seconds']:.1f}",
            f"{row['peak_memory_bytes'] / MEBIBYTE:,.0f}",
            faster,
        )
    return table


def ratio_lines(results: dict[str, Any]) -> list[str]:
    """The headline: ratios to each peer's faster precision, and memory."""
    return [
        f"{peer}: {ratio['cold']:.1f}x in the first epoch, {ratio['warm']:.1f}x from the second, "
        f"{results['memory_ratios'][peer]:.2f} of its peak memory ({results['ratio_questions']} questions a clip)"
        for peer, ratio in results["ratios"].items()
    ]
