"""report.html: one page that needs nothing but itself, with the table, the curves, the confusions and what was said.

All text that comes from records, replies and recipes is escaped.
"""

from __future__ import annotations

import csv
import html
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lalm.errors import AudioError
from lalm.evaluation.console import YARDSTICKS, percent
from lalm.evaluation.media import Curve, curve_svg, data_uri, sound_uri, spectrogram_uri
from lalm.evaluation.normalise import exact_form
from lalm.evaluation.page import STYLE
from lalm.evaluation.states import Clips
from lalm.files import write_text
from lalm.recipe.schema import Recipe

NUM_EXAMPLES = 20
MAX_CONFUSION_CLASSES = 14
LONGEST_TEXT = 400
YARDSTICK_MEANING = {
    "silent": "the same model hears silence",
    "swapped": "the same model hears another clip",
    "majority": "always the most common answer",
    "chance": "a blind draw",
    "probe": "linear probe on the frozen encoder",
}


def write_report(
    run: Path,
    metrics: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    recipe: Recipe,
    clips: Clips,
    sample_rate_hz: int | None = None,
) -> Path:
    """Writes `run/report.html` and returns its path.

    Args:
        metrics, predictions: as in metrics.json and predictions.jsonl.
        clips: where the examples' waveforms come from; an example whose clip cannot be read is shown without it.
        sample_rate_hz: rate of those waveforms; `clips.sample_rate_hz` by default.
    """
    rate = sample_rate_hz or clips.sample_rate_hz  # type: ignore[attr-defined]
    page = render(
        title=recipe.name,
        about=recipe.description,
        sections=[
            tiles(metrics),
            _section("Held-out results", task_table(metrics["tasks"]), _TABLE_NOTE),
            *(_section(f"What was kept of {entry['run']}", forgotten(entry)) for entry in metrics.get("forgotten", ())),
            _section("Training", loss_curve(run)),
            _section("What is taken for what", confusions(predictions), "Rows are truths, columns are replies."),
            _section(
                "Listen",
                examples(pick_examples(predictions, recipe.seed), clips, rate),
                "Held-out clips, drawn over all tasks without a look at the replies.",
            ),
            _section("Recipe", recipe_summary(recipe)),
        ],
    )
    path = Path(run) / "report.html"
    write_text(path, page)
    return path


_TABLE_NOTE = (
    "A model that listens stands clear of its own figures on silence and on another clip. "
    "Replies without an answer count as wrong."
)


def render(title: str, about: str, sections: Sequence[str]) -> str:
    """The whole page around its sections."""
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; media-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{_text(title)} – evaluation</title><style>{STYLE}</style></head><body><main>"
        f'<header><p class="eyebrow">lalm evaluation</p><h1>{_text(title)}</h1>'
        f'<p class="about">{_text(about)}</p></header>{"".join(sections)}'
        f"<footer>Written {made} by lalm.</footer></main></body></html>\n"
    )


def tiles(metrics: Mapping[str, Any]) -> str:
    """The headline figures: mean accuracy with and without the audio, WER, how much was asked, how long it took."""
    tasks = metrics["tasks"].values()
    scored = [figures for figures in tasks if "accuracy" in figures]
    cells = []
    if scored:
        cells.append((percent(_mean(scored, "accuracy")), f"mean accuracy over {len(scored)} tasks"))
        silent = [figures for figures in scored if figures.get("silent") is not None]
        if silent:
            cells.append((percent(_mean(silent, "silent")), "the same model on silence"))
    for name, figures in metrics["tasks"].items():
        if "wer" in figures:
            cells.append((percent(figures["wer"]), f"word error rate, {name}"))
    cells.append((f"{metrics.get('num_records', sum(figures['n'] for figures in tasks)):,}", "held-out questions"))
    seconds = metrics.get("wall_seconds", {})
    if "evaluate" in seconds:
        cells.append((_duration(seconds["evaluate"]), "to evaluate"))
    inner = "".join(
        f'<div class="card tile"><b>{_text(big)}</b><span>{_text(small)}</span></div>' for big, small in cells
    )
    return f'<div class="tiles">{inner}</div>'


def task_table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a task: a bar for the model with a tick for each yardstick, and all figures."""
    shown = [name for name in YARDSTICKS if any(figures.get(name) is not None for figures in tasks.values())]
    head = "".join(f"<th>{name}</th>" for name in shown)
    rows = "".join(_task_row(name, figures, shown) for name, figures in tasks.items())
    legend = "".join(f'<span><i class="{name}"></i>{name}: {YARDSTICK_MEANING[name]}</span>' for name in shown)
    return (
        '<div class="card scroll"><table class="tasks"><thead><tr><th>task</th><th>n</th><th>model</th>'
        f'<th class="left"></th>{head}<th>no answer</th></tr></thead><tbody>{rows}</tbody></table>'
        f'<div class="legend"><span><i class="bar"></i>this model</span>{legend}</div></div>'
    )


def forgotten(entry: Mapping[str, Any]) -> str:
    """The scores of an earlier run on its own held-out records, and this one's."""
    if "problem" in entry:
        return f"<p>Not measured: {_text(entry['problem'])}</p>"
    rows = "".join(
        f'<tr><td class="name">{_text(name)}</td><td>{_text(figures["score"])}</td><td>{figures["n"]}</td>'
        f"<td>{percent(figures['before'])}</td><td>{percent(figures['after'])}</td></tr>"
        for name, figures in entry["tasks"].items()
    )
    return (
        '<div class="card scroll"><table class="tasks"><thead><tr><th>task</th><th>score</th><th>n</th><th>before</th>'
        f"<th>after</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _task_row(name: str, figures: Mapping[str, Any], shown: Sequence[str]) -> str:
    is_wer = "wer" in figures
    value = figures["wer" if is_wer else "accuracy"]
    ticks = "".join(
        f'<i class="{tick}" style="left:{_share(figures[tick])}" title="{tick} {percent(figures[tick])}"></i>'
        for tick in shown
        if figures.get(tick) is not None
    )
    cells = "".join(
        f"<td>{percent(figures[tick])}</td>" if figures.get(tick) is not None else '<td class="none">–</td>'
        for tick in shown
    )
    details = ["word errors, less is better"] if is_wer else []
    if figures.get("interval"):
        details.append("95 %: {:.0f} to {:.0f} %".format(*(100 * bound for bound in figures["interval"])))
    details += [f"{key} {percent(figures[key])}" for key in ("cer", "exact") if key in figures]
    details += [f"{key} {figures[key]:.1f}" for key in ("bleu", "chrf") if key in figures]
    no_answer = figures.get("unanswered", 0) + figures.get("unparsed", 0)
    return (
        f'<tr><td class="name">{_text(name)}<small>{_text(", ".join(details))}</small></td><td>{figures["n"]}</td>'
        f'<td class="model">{percent(value)}</td><td class="wide"><div class="track">'
        f'<div class="fill" style="width:{_share(value)}"></div>{ticks}</div></td>{cells}'
        f'<td class="none">{no_answer or "–"}</td></tr>'
    )


def loss_curve(run: Path) -> str:
    """The losses of metrics.csv, stage after stage; else the picture loss.png; else nothing."""
    table, picture = Path(run) / "metrics.csv", Path(run) / "loss.png"
    drawn = curve_svg(read_losses(table), "training loss by step") if table.exists() else ""
    if not drawn and picture.exists():
        drawn = f'<img class="curve" alt="training loss" src="{data_uri(picture.read_bytes(), "image/png")}">'
    return f'<div class="card">{drawn}</div>' if drawn else ""


def read_losses(path: Path) -> list[Curve]:
    """Columns `step`, `loss` and, where there is one, `stage` of a CSV file; rows without a loss are passed over."""
    stages: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                step, loss = float(row["step"]), float(row["loss"])
            except (KeyError, TypeError, ValueError):
                continue
            if math.isfinite(loss):
                steps, values = stages.setdefault(row.get("stage") or "training", ([], []))
                steps.append(step)
                values.append(loss)
    return [Curve(name, steps, values) for name, (steps, values) in stages.items()]


def confusions(predictions: Sequence[Mapping[str, Any]]) -> str:
    """A truth-by-reply table of each task whose answers are few."""
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for row in predictions:
        tasks.setdefault(row["task"], []).append(row)
    tables = [_confusion(task, rows) for task, rows in tasks.items()]
    tables = [table for table in tables if table]
    return f'<div class="grids">{"".join(tables)}</div>' if tables else ""


def count_confusions(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str], dict[tuple[str, str], int]]:
    """(truths, replies, count of each pair) of one task; replies that are no truth are "other"."""
    said = [_as_class(row) for row in rows]
    truths = sorted({truth for truth, _ in said})
    counts: dict[tuple[str, str], int] = {}
    for truth, reply in said:
        pair = (truth, reply if reply in truths else "other")
        counts[pair] = counts.get(pair, 0) + 1
    columns = truths + (["other"] if any(reply == "other" for _, reply in counts) and "other" not in truths else [])
    return truths, columns, counts


def _as_class(row: Mapping[str, Any]) -> tuple[str, str]:
    """A right reply counts as its truth, whatever its words; a wrong one as what the scorer read in it."""
    truth = exact_form(row["truth"] or "")
    parsed = (row.get("details") or {}).get("parsed")
    return truth, truth if row["correct"] else exact_form(
        str(parsed) if isinstance(parsed, str) else row["reply"] or ""
    )


def _confusion(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    truths, columns, counts = count_confusions(rows)
    if not 2 <= len(truths) <= MAX_CONFUSION_CLASSES or len(rows) < 2 * len(truths):
        return ""
    head = "".join(f"<th><span>{_text(column)}</span></th>" for column in columns)
    body = ""
    for truth in truths:
        total = sum(counts.get((truth, column), 0) for column in columns)
        cells = ""
        for column in columns:
            count = counts.get((truth, column), 0)
            kind = "zero" if not count else "hit" if column == truth else ""
            shade = f' style="background:rgba(var(--heat),{0.12 + 0.55 * count / total:.2f})"' if count else ""
            cells += f'<td class="{kind}"{shade}>{count}</td>'
        body += f"<tr><th>{_text(truth)}</th>{cells}</tr>"
    return (
        f'<div class="card"><h3>{_text(task)}</h3><table class="confusion"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def pick_examples(
    predictions: Sequence[Mapping[str, Any]], seed: int, count: int = NUM_EXAMPLES
) -> list[Mapping[str, Any]]:
    """Records with audio, drawn in turn from every task; the same seed draws the same ones."""
    draw = random.Random(seed)
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for row in predictions:
        if row["audio"]:
            tasks.setdefault(row["task"], []).append(row)
    for rows in tasks.values():
        draw.shuffle(rows)
    picked: list[Mapping[str, Any]] = []
    while len(picked) < count and any(tasks.values()):
        picked += [rows.pop() for rows in tasks.values() if rows]
    return picked[:count]


def examples(rows: Sequence[Mapping[str, Any]], clips: Clips, sample_rate_hz: int) -> str:
    """Cards with the sound, its picture, the question, the reply and the truth."""
    if not rows:
        return ""
    return f'<div class="examples">{"".join(_example(row, clips, sample_rate_hz) for row in rows)}</div>'


def _example(row: Mapping[str, Any], clips: Clips, sample_rate_hz: int) -> str:
    pictures, players = "", ""
    for path in row["audio"]:
        try:
            wave = clips.load(path)
        except AudioError:
            continue
        pictures += f'<img alt="spectrogram" src="{spectrogram_uri(wave, sample_rate_hz)}">'
        players += f'<audio controls preload="metadata" src="{sound_uri(wave, sample_rate_hz)}"></audio>'
    lines = [("answer", row["reply"], "reply"), ("truth", row["truth"], "")]
    heard = (("silent", "on silence"), ("swapped", "other clip"))
    lines += [(name, row[key], "faint") for key, name in heard if row.get(key) is not None]
    inner = "".join(f'<dt>{name}</dt><dd class="{kind}">{_text(text) or "–"}</dd>' for name, text, kind in lines)
    return (
        f'<article class="card example"><div class="picture">{pictures}</div><div class="body">{players}'
        f'<div class="top"><span class="task">{_text(row["task"])}</span>{_mark(row)}</div>'
        f'<div class="question">{_text(row["question"])}</div><dl>{inner}</dl></div></article>'
    )


def _mark(row: Mapping[str, Any]) -> str:
    details = row.get("details") or {}
    if row["correct"]:
        return '<span class="mark right">&#10003; right</span>'
    if details.get("num_words"):
        return f'<span class="mark wrong">{details["word_errors"]} of {details["num_words"]} words wrong</span>'
    return '<span class="mark wrong">&#10007; wrong</span>'


def recipe_summary(recipe: Recipe) -> str:
    """What the run was made of in a few lines, and the whole recipe folded away."""
    lora = recipe.language_model.lora
    lines = [
        *(("encoder", f"{section.name}: {section.base}") for section in recipe.encoders),
        ("projector", recipe.projector.name),
        ("language model", recipe.language_model.base),
        ("adapter", f"{lora.variant}, rank {lora.rank}, on {lora.targets}" if lora else "none"),
        ("data", ", ".join(recipe.data.sources)),
        *((f"stage {stage.name}", _stage(stage)) for stage in recipe.stages),
    ]
    inner = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in lines)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return (
        f'<div class="card"><dl>{inner}</dl><details><summary>The whole recipe</summary>'
        f"<pre>{html.escape(text)}</pre></details></div>"
    )


def _stage(stage) -> str:
    rates = ", ".join(f"{part} {rate:g}" for part, rate in stage.learning_rates.model_dump().items() if rate)
    length = stage.describe_budget()
    return f"{length} of {stage.batch_records} records; learning rates: {rates}"


def _section(title: str, inner: str, note: str = "") -> str:
    if not inner:
        return ""
    return f"<section><h2>{_text(title)}</h2>{f'<p class=note>{_text(note)}</p>' if note else ''}{inner}</section>"


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return html.escape(text if len(text) <= LONGEST_TEXT or "\n" in text else text[:LONGEST_TEXT] + " ...")


def _share(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.1f}%"


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
