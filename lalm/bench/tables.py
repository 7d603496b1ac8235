"""What a measurement prints."""

from __future__ import annotations

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
