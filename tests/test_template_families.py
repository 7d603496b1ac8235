"""Which template fits which family: the text of one exchange as the family's own published template writes it.

The published texts stand here in full, with the family's own BOS and end tokens, so that no network is needed. Two
things are ours on purpose: a family without a system turn gets it inside the first user turn, and a conversation has
one BOS (Llama 2's own template opens every exchange with another).
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lalm.processing.templates import ChatTemplate, Message, template_names

SYSTEM, USER, ANSWER = "Be brief.", "What is heard?", "A dog."


@dataclass(frozen=True)
class Family:
    """A family's template here, its own tokens, and what its own template writes; `answer` opens behind `prompt`."""

    template: str
    bos: str
    eos: str
    prompt: str
    answer: str
    end: str
    """What ends an answer."""
    has_system: bool = True


FAMILIES = {
    "Qwen2.5, Qwen3": Family(
        "chatml",
        "",
        "<|im_end|>",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is heard?<|im_end|>\n<|im_start|>assistant\n",
        "A dog.<|im_end|>\n",
        "<|im_end|>",
    ),
    "SmolLM2-Instruct": Family(
        "chatml",
        "",
        "<|im_end|>",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is heard?<|im_end|>\n<|im_start|>assistant\n",
        "A dog.<|im_end|>\n",
        "<|im_end|>",
    ),
    "Llama-2-chat": Family(
        "llama2",
        "<s>",
        "</s>",
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is heard? [/INST]",
        " A dog. </s>",
        "</s>",
    ),
    "Meta-Llama-3-Instruct": Family(
        "llama3",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is heard?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "A dog.<|eot_id|>",
        "<|eot_id|>",
    ),
    "Mistral-7B-Instruct-v0.2": Family(
        "mistral", "<s>", "</s>", "<s>[INST] What is heard? [/INST]", " A dog.</s>", "</s>", has_system=False
    ),
    "Gemma, Gemma 2": Family(
        "gemma",
        "<bos>",
        "<eos>",
        "<bos><start_of_turn>user\nWhat is heard?<end_of_turn>\n<start_of_turn>model\n",
        "A dog.<end_of_turn>\n",
        "<end_of_turn>",
        has_system=False,
    ),
    "Gemma 3": Family(
        "gemma",
        "<bos>",
        "<eos>",
        "<bos><start_of_turn>user\nBe brief.\n\nWhat is heard?<end_of_turn>\n<start_of_turn>model\n",
        "A dog.<end_of_turn>\n",
        "<end_of_turn>",
    ),
    "Phi-3-mini-instruct": Family(
        "phi",
        "",
        "<|endoftext|>",
        "<|system|>\nBe brief.<|end|>\n<|user|>\nWhat is heard?<|end|>\n<|assistant|>\n",
        "A dog.<|end|>\n",
        "<|end|>",
    ),
    "Vicuna 1.1": Family(
        "vicuna", "<s>", "</s>", "<s>Be brief. USER: What is heard? ASSISTANT:", " A dog.</s>", "</s>"
    ),
    "Granite 3": Family(
        "granite",
        "",
        "<|end_of_text|>",
        "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>What is heard?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
        "A dog.<|end_of_text|>\n",
        "<|end_of_text|>",
    ),
    "Mistral's tokenizer of version 7 (Mistral Small 3, Voxtral)": Family(
        "voxtral",
        "<s>",
        "</s>",
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]What is heard?[/INST]",
        "A dog.</s>",
        "</s>",
    ),
    "Alpaca": Family(
        "alpaca",
        "<s>",
        "</s>",
        "<s>Be brief.\n\n### Instruction:\nWhat is heard?\n\n### Response:\n",
        "A dog.</s>",
        "</s>",
    ),
    "LTU, GAMA": Family(
        "ltu",
        "<s>",
        "</s>",
        "<s>### Instruction:\nWhat is heard?\n\n### Response:\n",
        "A dog.</s>",
        "</s>",
        has_system=False,
    ),
    "TinyLlama-chat, Zephyr": Family(
        "zephyr",
        "",
        "</s>",
        "<|system|>\nBe brief.</s>\n<|user|>\nWhat is heard?</s>\n<|assistant|>\n",
        "A dog.</s>\n",
        "</s>",
    ),
    "Falcon3-Instruct": Family(
        "falcon",
        "",
        "<|endoftext|>",
        "<|system|>\nBe brief.\n<|user|>\nWhat is heard?\n<|assistant|>\n",
        "A dog.<|endoftext|>\n",
        "<|endoftext|>",
    ),
    "OPT, GPT-2, GPT-NeoX, SmolLM2 (no chat format of their own)": Family(
        "plain",
        "",
        "<|endoftext|>",
        "Be brief.\nUser: What is heard?\nAssistant:",
        " A dog.<|endoftext|>",
        "<|endoftext|>",
    ),
    "Flan-T5": Family("flan", "", "</s>", "Be brief.\nWhat is heard?\n", "A dog.</s>", "</s>"),
    "SALMONN": Family(
        "salmonn", "<s>", "</s>", "<s>USER: What is heard?\nASSISTANT:", " A dog.</s>", "</s>", has_system=False
    ),
}

OF_WHOLE_MODELS = {"qwen2_audio"}
"""Templates that are tested beside the model that brings them (tests/model/test_whole_models.py)."""


def rendered(family: Family, *, with_answer: bool) -> str:
    messages = [Message("system", (SYSTEM,))] if family.has_system else []
    messages += [Message("user", (USER,)), *([Message("assistant", (ANSWER,))] if with_answer else [])]
    segments = ChatTemplate.load(family.template).render(
        messages, add_generation_prompt=not with_answer, bos_token=family.bos, eos_token=family.eos
    )
    return "".join(segment.text for segment in segments)


def supervised(family: Family) -> str:
    messages = (Message("user", (USER,)), Message("assistant", (ANSWER,)))
    segments = ChatTemplate.load(family.template).render(messages, bos_token=family.bos, eos_token=family.eos)
    return "".join(segment.text for segment in segments if segment.supervised)


def test_every_template_belongs_to_a_family():
    assert {family.template for family in FAMILIES.values()} | OF_WHOLE_MODELS == set(template_names())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_is_the_published_one(name):
    family = FAMILIES[name]
    assert rendered(family, with_answer=False) == family.prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_the_exchange_is_the_published_one(name):
    family = FAMILIES[name]
    assert rendered(family, with_answer=True).rstrip("\n") == (family.prompt + family.answer).rstrip("\n")


@pytest.mark.parametrize("name", FAMILIES)
def test_one_beginning_and_the_familys_end_which_is_learned(name):
    family = FAMILIES[name]
    text = rendered(family, with_answer=True)
    assert text.startswith(family.bos)
    assert not family.bos or text.count(family.bos) == 1
    assert supervised(family).strip() in (ANSWER + family.end, f"{ANSWER} {family.end}")
