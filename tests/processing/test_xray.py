"""The X-ray: what it tells of a good sample, and that it finds what a bad template does."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tiny_tokenizers import TOKENIZERS, processor_of

from lalm.data.records import Record
from lalm.processing.xray import show_sample, xray_record

RECORD = Record.model_validate(
    {
        "id": "q1",
        "audio": ["a.wav", "b.wav"],
        "turns": [
            {"role": "user", "content": "<audio><audio>What is heard?"},
            {"role": "assistant", "content": "A dog."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "A door."},
        ],
    }
)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_invariant_holds(name):
    xray = xray_record(processor_of(name), RECORD, [23, 4])
    assert xray.holds, xray.checks
    assert xray.difference == ""
    assert [token for run in xray.runs for token in run.ids] == xray.encoded.input_ids
    assert [run.kind for run in xray.runs if run.kind != "prompt"] == ["audio", "audio", "supervised", "supervised"]
    assert [len(run.ids) for run in xray.runs if run.kind == "audio"] == [23, 4]
    assert all(len(run.ids) == len(run.tokens) for run in xray.runs)


def test_a_question_without_answer_can_be_shown(processor):
    record = Record.model_validate({"id": "q", "turns": [{"role": "user", "content": "Hi"}]})
    xray = xray_record(processor, record, [])
    assert xray.holds
    assert {run.kind for run in xray.runs} == {"prompt"}


def test_what_is_printed():
    console = Console(file=io.StringIO(), width=200)
    show_sample(processor_of("byte_level_bos"), RECORD, [23, 4], console)
    text = console.file.getvalue()
    assert "record q1, template plain" in text
    assert "audio x 23" in text
    assert "<|im_end|> 3" in text
    assert "holds  one BOS: <|begin|> at position(s) [0]" in text
    assert "holds  end token supervised: 2 of 2 answers" in text
    assert "FAILS" not in text


def test_a_template_that_differs_between_training_and_chat_is_found(processor):
    source = processor.chat_template.replace(
        "'<|im_start|>assistant\\n' -}}\n{%- endif", "'<|im_start|>model\\n' -}}\n{%- endif"
    )
    assert source != processor.chat_template
    broken = type(processor)(
        processor.tokenizer,
        chat_template=source,
        front_ends=processor.front_ends,
        position_rule=processor.position_rule,
    )
    xray = xray_record(broken, RECORD, [23, 4])
    assert [check.name for check in xray.checks if not check.holds] == ["training and chat agree"]
    assert xray.difference.startswith("at position ")
