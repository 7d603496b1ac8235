"""Behaviour alignment (BLSP): the target of a clip is what the plain language model says after its transcript."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lalm.data.examples import SourcedRecord
from lalm.data.records import Record
from lalm.data.variants import continuation_question
from lalm.errors import DataError
from lalm.model.build import build_model
from lalm.training.continuations import continue_transcripts, read_continuations, write_continuations

SAID = ("one two", "a much longer sentence than the first one", "three")


def greedy(model, processor, prompt: list[int], count: int) -> str:
    """Token by token, without a cache: the largest logit of the language model alone."""
    ids = list(prompt)
    for _ in range(count):
        logits = model.language_model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()
        logits[model.config.audio_token_id] = -np.inf
        ids.append(int(logits.argmax()))
        if ids[-1] in processor.stop_token_ids:
            break
    return processor.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()


@torch.no_grad()
def test_targets_are_the_language_models_greedy_answers_without_the_adapter(tiny_recipe):
    stage = tiny_recipe.stages[0].model_copy(update={"continuation_tokens": 8, "continuation_prompt": "Go on:"})
    model, processor = build_model(tiny_recipe, dtype=torch.float32, device="cpu")
    generator = torch.Generator().manual_seed(3)
    for _, parameter in [*model.parts()["language_model"], *model.parts()["lora"]]:
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    records = [
        SourcedRecord(
            Record(id=said, audio=("x.wav",), turns=({"role": "user", "content": "?"},
                   {"role": "assistant", "content": said})), "train", ("x.wav",))
        for said in SAID
    ]  # fmt: skip
    found = continue_transcripts(model, processor, records, stage)
    assert list(found) == list(SAID)
    with_adapter = dict(found)
    for scale, texts in ((1.0, with_adapter), (0.0, found)):
        model.set_lora_scale(scale)
        for said in SAID:
            question = continuation_question("Go on:", said)
            prompt = processor.encode_turns((question,), [], add_generation_prompt=True).input_ids
            answer = greedy(model.eval(), processor, [*prompt], 8)
            if scale:
                texts[said] = answer
            else:
                assert found[said] == answer
    assert with_adapter != found, "the adapter must matter in this test"
    assert any(found.values())


def test_a_stage_without_transcripts_is_refused(tiny_recipe, tmp_path):
    stage = tiny_recipe.stages[0].model_copy(update={"answers": "continued"})
    recipe = tiny_recipe.model_copy(update={"stages": (stage,)})
    model, processor = build_model(recipe)
    with pytest.raises(DataError, match=rf"stage '{stage.name}': answers: continued needs records of one clip"):
        write_continuations(recipe, 0, model, processor, tmp_path / "continuations.jsonl")
    assert read_continuations(tmp_path / "continuations.jsonl") == {}
