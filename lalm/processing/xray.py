"""The X-ray of one sample: which of its ids are audio, prompt or supervised, and whether the invariants hold.

`lalm show` prints it; it uses the assembler of training and chat, so it shows what they see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lalm.data.records import Record
from lalm.processing.prompts import IGNORED, Encoded, place_clips
from lalm.processing.templates import Clip

if TYPE_CHECKING:
    from lalm.processing.processor import LalmProcessor

Kind = Literal["audio", "prompt", "supervised"]
STYLES: dict[Kind, str] = {"audio": "black on cyan", "prompt": "default", "supervised": "black on green"}
MEANINGS: dict[Kind, str] = {
    "audio": "positions that audio vectors take",
    "prompt": "text that is read, without loss",
    "supervised": "text that the model learns to write",
}


@dataclass(frozen=True)
class Run:
    """Neighbouring ids of one kind, from position `start`, with their spelling."""

    kind: Kind
    start: int
    ids: list[int]
    tokens: list[str]


@dataclass(frozen=True)
class Check:
    """One invariant: its name, whether it holds, and what was seen."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True)
class XRay:
    """All that is known of one encoded record. `difference`: where training and chat part, empty where they do not."""

    record_id: str
    template: str
    encoded: Encoded
    runs: list[Run]
    checks: list[Check]
    difference: str

    @property
    def holds(self) -> bool:
        """Whether every invariant holds."""
        return all(check.holds for check in self.checks)


def xray_record(processor: LalmProcessor, record: Record, num_positions: Sequence[int]) -> XRay:
    """Encodes a record as training does and checks it.

    Args:
        num_positions: audio positions `A` of each clip of the record.

    Raises:
        DataError: if the record and the clips do not fit together.
    """
    prompt = processor.encode_turns(record.prompt_turns(), num_positions, add_generation_prompt=True)
    encoded = prompt if record.answer is None else processor.encode_turns(record.turns, num_positions)
    difference = _difference(processor, encoded, prompt)
    checks = [
        _check_bos(processor, encoded),
        _check_audio(encoded, num_positions),
        *([_check_end(processor, record, encoded)] if record.answer is not None else []),
        Check(
            "training and chat agree", not difference, difference or f"the first {len(prompt.input_ids)} ids are equal"
        ),
        _check_transformers(processor, record),
    ]
    return XRay(record.id, processor.template_name, encoded, _runs(processor, encoded), checks, difference)


def show_sample(processor: LalmProcessor, record: Record, num_positions: Sequence[int], console: Console) -> XRay:
    """Prints the X-ray of a record and returns it."""
    xray = xray_record(processor, record, num_positions)
    console.print(draw(xray))
    return xray


def draw(xray: XRay) -> Group:
    """An X-ray as a rich renderable: a row for each run, a legend, the checks."""
    ids = xray.encoded.input_ids
    title = Text(f"record {xray.record_id}, template {xray.template}: {len(ids)} positions, ", style="bold")
    num_audio = sum(end - start for start, end in xray.encoded.audio_spans)
    title.append(f"{num_audio} audio, {xray.encoded.num_supervised} supervised")
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("from", justify="right")
    table.add_column("kind")
    table.add_column("tokens and their ids")
    for run in xray.runs:
        table.add_row(str(run.start), run.kind, _spell(run))
    legend = Text()
    for kind, meaning in MEANINGS.items():
        legend.append(f" {kind} ", STYLES[kind]).append(f" {meaning}   ")
    verdicts = Text()
    for check in xray.checks:
        verdicts.append("holds  " if check.holds else "FAILS  ", "green" if check.holds else "bold red")
        verdicts.append(f"{check.name}: {check.detail}\n")
    return Group(title, table, Text(), legend, Text(), verdicts)


def _spell(run: Run) -> Text:
    if run.kind == "audio":
        return Text(f" audio x {len(run.ids)} ", STYLES["audio"]).append(f" {run.ids[0]}", "dim")
    text = Text()
    for token_id, token in zip(run.ids, run.tokens, strict=True):
        visible = token.replace("\n", "\\n").replace(" ", "\N{MIDDLE DOT}")
        text.append(visible, STYLES[run.kind]).append(f" {token_id}  ", "dim")
    return text


def _runs(processor: LalmProcessor, encoded: Encoded) -> list[Run]:
    kinds: list[tuple[Kind, int]] = [("prompt" if label == IGNORED else "supervised", -1) for label in encoded.labels]
    for number, (start, end) in enumerate(encoded.audio_spans):
        kinds[start:end] = [("audio", number)] * (end - start)
    runs = []
    for (kind, _), positions in groupby(range(len(kinds)), key=lambda position: kinds[position]):
        places = list(positions)
        ids = [encoded.input_ids[place] for place in places]
        runs.append(Run(kind, places[0], ids, [spelling(processor, token_id) for token_id in ids]))
    return runs


def spelling(processor: LalmProcessor, token_id: int) -> str:
    """The text of one token; its name in the vocabulary where it is only a part of a character."""
    name = processor.tokenizer.convert_ids_to_tokens(token_id)
    # Sentencepiece's own space, which decoding a lone token would drop.
    if name.startswith("\u2581"):
        return name.replace("\u2581", " ")
    text = processor.tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return name if not text or "\N{REPLACEMENT CHARACTER}" in text else text


def _check_bos(processor: LalmProcessor, encoded: Encoded) -> Check:
    bos = processor.prompts.bos_token_id
    if bos is None:
        return Check("one BOS", True, "this tokenizer opens a text without one")
    places = [place for place, token_id in enumerate(encoded.input_ids) if token_id == bos]
    return Check("one BOS", places == [0], f"{spelling(processor, bos)} at position(s) {places}")


def _check_audio(encoded: Encoded, num_positions: Sequence[int]) -> Check:
    found = [end - start for start, end in encoded.audio_spans]
    has_no_loss = all(label == IGNORED for start, end in encoded.audio_spans for label in encoded.labels[start:end])
    return Check(
        "audio positions", found == list(num_positions) and has_no_loss, f"{found} for {len(num_positions)} clips"
    )


def _check_end(processor: LalmProcessor, record: Record, encoded: Encoded) -> Check:
    end = processor.prompts.end_token_id
    answers = [turn for turn in record.turns if turn.role == "assistant"]
    is_last = [
        label != IGNORED and (place + 1 == len(encoded.labels) or encoded.labels[place + 1] == IGNORED)
        for place, label in enumerate(encoded.labels)
    ]
    ends = [encoded.labels[place] for place, last in enumerate(is_last) if last]
    return Check(
        "end token supervised",
        ends == [end] * len(answers),
        f"{ends.count(end)} of {len(answers)} answers end with {spelling(processor, end)} ({end})",
    )


def _difference(processor: LalmProcessor, training: Encoded, chat: Encoded) -> str:
    for place, wanted in enumerate(chat.input_ids):
        got = training.input_ids[place] if place < len(training.input_ids) else None
        if got != wanted:
            here = "nothing" if got is None else repr(spelling(processor, got))
            return f"at position {place} chat has {spelling(processor, wanted)!r}, training has {here}"
    return ""


def _check_transformers(processor: LalmProcessor, record: Record) -> Check:
    """Whether transformers' own rendering of the template gives the same text."""
    messages = processor.prompts.with_system(place_clips(record.turns, len(record.audio)))
    ours = processor.prompts.text(messages)
    conversation = [{"role": message.role, "content": [_part(part) for part in message.parts]} for message in messages]
    bos = processor.tokenizer.bos_token if processor.prompts.bos_token_id is not None else ""
    theirs = processor.tokenizer.apply_chat_template(conversation, tokenize=False, bos_token=bos)
    detail = "the rendered texts are equal" if ours == theirs else f"{ours!r} is not {theirs!r}"
    return Check("transformers renders the same", ours == theirs, detail)


def _part(part: str | Clip) -> dict[str, str]:
    return {"type": "audio"} if isinstance(part, Clip) else {"type": "text", "text": part}
