"""`metrics.csv`: one row an optimizer step, and what is read back from it. A resumed run goes on in the same file."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = (
    "stage",
    "step",
    "global_step",
    "loss",
    "lr_projector",
    "lr_lora",
    "lr_encoder",
    "lr_language_model",
    "lr_heads",
    "grad_norm",
    "records",
    "audio_seconds",
    "positions",
    "held_out_loss",
    "seconds",
)
"""`step` counts within the stage, `global_step` over the run; `records`, `audio_seconds`, `positions` and `seconds`
are those of this step. Losses are written in full, so that two runs can be compared exactly. Between `held_out_loss`
and `seconds` stand columns that differ between runs: `loss/task/NAME`, `loss/source/NAME` (means over their tokens),
`loss/objective/NAME` and `grad_norm/PART` (before clipping)."""


class MetricsFile:
    """Appends rows, each on the disk before the next step starts."""

    def __init__(self, path: Path, columns: Sequence[str] = ()):
        self.path, self.extra = path, list(columns)

    @property
    def columns(self) -> list[str]:
        """The header: the columns of every run, those that the file had, those of this stage, and `seconds`."""
        found = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as lines:
                found = next(csv.reader(lines), [])
        more = [name for name in dict.fromkeys([*found, *self.extra]) if name not in COLUMNS]
        return [*COLUMNS[:-1], *more, COLUMNS[-1]]

    def rewind(self, global_step: int) -> None:
        """Drops rows behind `global_step`, which a killed run trained but did not save."""
        rows = [row for row in read_metrics(self.path) if row["global_step"] <= global_step]
        columns = self.columns
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)

    def add(self, row: dict[str, Any]) -> None:
        """Appends one row; keys that are no column are left out."""
        columns = self.columns
        with self.path.open("a", newline="", encoding="utf-8") as out:
            csv.DictWriter(out, columns, extrasaction="ignore").writerow(row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Whole rows, numbers as numbers (None where a part did not train). A row that a kill cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            try:
                whole = {name: _number(name, text) for name, text in row.items()}
            except (TypeError, ValueError, KeyError):
                continue
            if whole.get("seconds") is not None:
                rows.append({**dict.fromkeys(COLUMNS), **whole})
    return rows


def _number(name: str, text: str) -> Any:
    if name == "stage":
        return text
    if name in ("step", "global_step"):
        return int(text)
    if text is None:
        raise ValueError(f"{name}: the row ends before it")
    return float(text) if text else None
