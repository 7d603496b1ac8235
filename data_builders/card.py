"""The card of a set (README.md) and the licences of its recordings (NOTICE)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.clips import SPLITS, Skipped, Split
from data_builders.filters.base import Funnel
from data_builders.recipe import DataRecipe
from data_builders.stats import blind_accuracy, task_stats
from lalm.data.records import Record

LICENCES = {
    "asterisk-core-sounds": "Asterisk prompts: English and Spanish by Allison Smith, French by June Wallack "
    "(CC-BY-SA-3.0); Italian by Carlo Flora, Russian provided by Maxim Topal, ivrvoice.ru (CC-BY-3.0).",
    "sonic-pi-samples": "Sonic Pi samples: from freesound.org, CC0-1.0; each record names the page of its sample.",
    "timgm6mb-soundfont": "TimGM6mb SoundFont by Tim Brechbill and David Bolton, GPL-2; notes are rendered from it.",
}
CONFOUNDS = """\
- One voice a language, and only the Italian one is male: speaker and sex are one with the language. Neither is asked.
- English and Spanish are read by the same person.
- The prompts are telephone speech (8 kHz, nothing above 4 kHz); the other recordings are not. About half of the
  other clips and of the scenes are cut at 3.7 kHz, in every split, so that bandwidth does not tell speech from sound.
- Letters, digits and code words said alone are held out by recording, not by word: the set of words is closed.
  Italian letter names and code words that no other voice shares are in training only.
- The Russian voice reads the letters by their English names. Spanish transcripts lack accents; French ones have typos.
- The sound labels are the file names of the Sonic Pi samples; instruments are SoundFont renders, held out by preset.
- Variants (other speed, gain, faint noise) are made of training clips only and inherit their group.
"""


def write_card(
    folder: Path,
    read: Callable[[Split], Iterable[Record]],
    refused: Mapping[str, Mapping[str, int]],
    skipped: Sequence[Skipped],
    recipe: DataRecipe,
    funnel: Funnel,
) -> None:
    """Writes README.md into the folder of a set.

    `read` gives the records of a split, as often as it is called; `refused` is what was not asked of training clips,
    by task and reason; `funnel` is what the records went through.
    """
    blind = blind_accuracy(read("train"), read("test"))
    rows = {split: {row.task: row for row in task_stats(read(split))} for split in SPLITS}
    spoken: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    licences: Counter[tuple[str, str]] = Counter()
    for split in SPLITS:
        for record in read(split):
            licences[record.source, record.licence] += 1
            if "language" in record.meta:
                spoken[split][record.meta["language"]] += 1
    lines = [
        "# Audio question-answer set",
        "",
        f"Built by `lalm data build {recipe.name}`. {recipe.description}",
        f"Seed {recipe.seed}.",
        "",
        "## Tasks",
        "",
        "`majority`: the commonest test answer. `chance`: a blind pick of the choices. `blind`: the commonest training",
        "answer to the same question, without audio.",
        "",
        "| task | train | validation | test | answers in test | majority | chance | blind |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, row in rows["test"].items():
        train, validation = rows["train"].get(task), rows["validation"].get(task)
        lines.append(
            f"| {task} | {train.records if train else 0} | {validation.records if validation else 0} | {row.records} "
            f"| {row.answers} | {row.majority:.2f} ({row.majority_answer[:40]}) | {row.chance:.2f} "
            f"| {blind[task]:.2f} |"
        )
    lines += ["", "## Languages", "", "| language | train | validation | test |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {spoken['train'][name]} | {spoken['validation'][name]} | {spoken['test'][name]} |"
        for name in sorted(spoken["train"])
    ]
    lines += funnel_lines(funnel)
    lines += ["", "## Sources and licences", ""]
    lines += [f"- {name} ({licence}): {count} records" for (name, licence), count in sorted(licences.items())]
    lines += [
        "",
        "The full notices are in NOTICE.",
        "",
        "## Known confounds and limits",
        "",
        CONFOUNDS,
        "## Not asked, and why",
        "",
        "| task | reason | times |",
        "|---|---|---|",
    ]
    for task, reasons in refused.items():
        lines += [
            f"| {task} | {reason} | {count} |" for reason, count in sorted(reasons.items(), key=lambda row: -row[1])[:3]
        ]
    lines += ["", f"## Left out: {len(skipped)} recordings", ""]
    lines += [f"- {reason}: {count}" for reason, count in Counter(entry.reason for entry in skipped).most_common(12)]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def funnel_lines(funnel: Funnel) -> list[str]:
    """The funnel of the filters and the blind baseline that they measured, as Markdown."""
    lines = ["", "## Filters", "", "| filter | entered | kept | rejected for |", "|---|---|---|---|"]
    for step in funnel.steps:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(step.reasons.items(), key=by_count)) or "-"
        lines.append(f"| {step.name} | {step.entered} | {step.kept} | {reasons} |")
    blind = funnel.reports.get("blind")
    if blind:
        lines += [
            "",
            "## Blind baseline",
            "",
            "Closed questions of every split that a classifier answers from their words alone, without audio",
            "(cross-validated by clip). `above chance`: how many it answers beyond what chance explains; they are",
            "named in `provenance.filters.blind`, or left out. `longest`: taking the longest option.",
            "",
            "| task | questions | blind | chance | majority | longest | above chance |",
            "|---|---|---|---|---|---|---|",
        ]
        for task, row in blind.items():
            shares = " | ".join(f"{row[key]:.2f}" for key in ("accuracy", "chance", "majority", "longest_option"))
            lines.append(f"| {task} | {row['questions']} | {shares} | {row['dropped']} |")
    return lines


def by_count(row: tuple[str, int]) -> tuple[int, str]:
    """Sorts counts from the largest, equal ones by name, in whatever order they were counted."""
    return -row[1], row[0]


def notice(packages: Any) -> str:
    """Who made the recordings, under which licence, from which version of which package."""
    lines = [
        "The recordings of this set come from Debian packages and keep their own licences, not that of the code.",
        "",
    ]
    lines += [f"- {text}" for text in LICENCES.values()]
    lines += [
        "",
        "Clips were resampled to 16 kHz mono; some were shortened, filtered, re-levelled or mixed into scenes.",
        "Files with prompts (CC-BY-SA) and files with SoundFont renders (GPL-2) are kept apart.",
        "",
        "Packages:",
    ]
    lines += [f"- {package['name']} {package['version']}, sha256 {package['sha256']}" for package in packages or ()]
    return "\n".join(lines) + "\n"
