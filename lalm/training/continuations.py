"""Targets of behaviour alignment: how the plain language model continues each transcript (BLSP, arXiv 2309.00916).

Made once, by the first process, before the stage begins; kept in the stage's folder, so that a resumed run and the
other processes read the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lalm.data.dataset import stage_records
from lalm.data.examples import SourcedRecord
from lalm.data.variants import continuation_question
from lalm.errors import DataError
from lalm.files import write_text
from lalm.recipe.schema import Recipe, StageSection

if TYPE_CHECKING:
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

CONTINUATIONS = "continuations.jsonl"
BATCH_SIZE = 16


def write_continuations(
    recipe: Recipe,
    stage_index: int,
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    path: Path,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Asks the language model, without its adapter, for the records that `path` does not hold yet.

    Raises:
        DataError: if the stage has no record of one clip and a transcript.
    """
    stage = recipe.stages[stage_index]
    records, _ = stage_records(recipe, stage_index)
    if not records:
        raise DataError(
            f"stage '{stage.name}': answers: continued needs records of one clip and an answer of type transcript; its "
            "sources and tasks have none."
        )
    known = read_continuations(path)
    missing = [item for item in records if item.record.id not in known]
    if not missing:
        return
    report(f"Stage {stage.name}: the language model continues {len(missing)} transcripts.")
    known |= continue_transcripts(model, processor, missing, stage)
    lines = [json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in known.items()]
    write_text(path, "\n".join(lines) + "\n")


def read_continuations(path: Path) -> dict[str, str]:
    """Record id -> continuation; empty where there is no file."""
    if not path.is_file():
        return {}
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: row["text"] for row in rows}


@torch.no_grad()
def continue_transcripts(
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    records: Sequence[SourcedRecord],
    stage: StageSection,
) -> dict[str, str]:
    """The greedy continuation of each record's transcript, by record id. Mode and adapter scale are put back."""
    prompts = {
        item.record.id: list(
            processor.encode_turns(
                (continuation_question(stage.continuation_prompt, str(item.record.answer)),),
                [],
                add_generation_prompt=True,
            ).input_ids
        )
        for item in records
    }
    names = sorted(prompts, key=lambda name: -len(prompts[name]))
    was_training, scale = model.training, model.lora_scale
    model.eval()
    model.set_lora_scale(0.0)
    try:
        texts: dict[str, str] = {}
        for start in range(0, len(names), BATCH_SIZE):
            batch = names[start : start + BATCH_SIZE]
            texts |= _continue_batch(model, processor, {name: prompts[name] for name in batch}, stage)
    finally:
        model.set_lora_scale(scale)
        model.train(was_training)
    return {item.record.id: texts[item.record.id] for item in records}


def _continue_batch(
    model: LalmForConditionalGeneration,
    processor: LalmProcessor,
    prompts: dict[str, list[int]],
    stage: StageSection,
) -> dict[str, str]:
    length = max(map(len, prompts.values()))
    input_ids = torch.full((len(prompts), length), processor.tokenizer.pad_token_id, device=model.device)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts.values()):
        input_ids[row, length - len(ids) :] = torch.tensor(ids, device=model.device)
        attention_mask[row, length - len(ids) :] = 1
    replies = model.generate(
        input_ids=input_ids,
        attention_mask=attention_mask,
        max_new_tokens=stage.continuation_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=processor.stop_token_ids,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    decoded = processor.tokenizer.batch_decode(replies[:, length:], skip_special_tokens=True)
    return dict(zip(prompts, (text.strip() for text in decoded), strict=True))
