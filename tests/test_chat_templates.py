"""Every shipped chat template, to the character: what it renders, what is supervised, and that transformers agrees.

In the golden texts, {braces} stand around what is supervised.
"""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from lalm.processing.templates import ChatTemplate, Clip, Message, template_names

CONVERSATION = (
    Message("system", ("Be brief.",)),
    Message("user", (Clip(), "What is heard?")),
    Message("assistant", ("A dog.",)),
    Message("user", ("Compare ", Clip(), " and ", Clip(), ".")),
    Message("assistant", ("Both bark.",)),
)
PROMPT = (Message("user", ("What is heard?",)),)

GOLDEN = {
    "alpaca": (
        "<s>Be brief.\n\n### Instruction:\n<|audio|>What is heard?\n\n### Response:\n{A dog.</s>}\n\n"
        "### Instruction:\nCompare <|audio|> and <|audio|>.\n\n### Response:\n{Both bark.</s>}\n\n",
        "<s>### Instruction:\nWhat is heard?\n\n### Response:\n",
    ),
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|audio|>What is heard?<|im_end|>\n"
        "<|im_start|>assistant\n{A dog.<|im_end|>}\n<|im_start|>user\nCompare <|audio|> and <|audio|>.<|im_end|>\n"
        "<|im_start|>assistant\n{Both bark.<|im_end|>}\n",
        "<|im_start|>user\nWhat is heard?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "falcon": (
        "<s><|system|>\nBe brief.\n<|user|>\n<|audio|>What is heard?\n<|assistant|>\n{A dog.</s>}\n"
        "<|user|>\nCompare <|audio|> and <|audio|>.\n<|assistant|>\n{Both bark.</s>}\n",
        "<s><|user|>\nWhat is heard?\n<|assistant|>\n",
    ),
    "flan": (
        "Be brief.\n<|audio|>What is heard?\n{A dog.</s>}Compare <|audio|> and <|audio|>.\n{Both bark.</s>}",
        "What is heard?\n",
    ),
    "zephyr": (
        "<s><|system|>\nBe brief.</s>\n<|user|>\n<|audio|>What is heard?</s>\n<|assistant|>\n{A dog.</s>}\n"
        "<|user|>\nCompare <|audio|> and <|audio|>.</s>\n<|assistant|>\n{Both bark.</s>}\n",
        "<s><|user|>\nWhat is heard?</s>\n<|assistant|>\n",
    ),
    "gemma": (
        "<s><start_of_turn>user\nBe brief.\n\n<|audio|>What is heard?<end_of_turn>\n<start_of_turn>model\n"
        "{A dog.<end_of_turn>}\n<start_of_turn>user\nCompare <|audio|> and <|audio|>.<end_of_turn>\n"
        "<start_of_turn>model\n{Both bark.<end_of_turn>}\n",
        "<s><start_of_turn>user\nWhat is heard?<end_of_turn>\n<start_of_turn>model\n",
    ),
    "granite": (
        "<|start_of_role|>system<|end_of_role|>Be brief.</s>\n"
        "<|start_of_role|>user<|end_of_role|><|audio|>What is heard?</s>\n"
        "<|start_of_role|>assistant<|end_of_role|>{A dog.</s>}\n"
        "<|start_of_role|>user<|end_of_role|>Compare <|audio|> and <|audio|>.</s>\n"
        "<|start_of_role|>assistant<|end_of_role|>{Both bark.</s>}\n",
        "<|start_of_role|>user<|end_of_role|>What is heard?</s>\n<|start_of_role|>assistant<|end_of_role|>",
    ),
    "llama2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<|audio|>What is heard? [/INST]{ A dog. </s>}"
        "[INST] Compare <|audio|> and <|audio|>. [/INST]{ Both bark. </s>}",
        "<s>[INST] What is heard? [/INST]",
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<|audio|>What is heard?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{A dog.<|eot_id|>}"
        "<|start_header_id|>user<|end_header_id|>\n\nCompare <|audio|> and <|audio|>.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{Both bark.<|eot_id|>}",
        "<s><|start_header_id|>user<|end_header_id|>\n\nWhat is heard?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "ltu": (
        "<|audio|><s>Be brief.\n\n### Instruction:\nWhat is heard?\n\n### Response:\n{A dog.</s>}\n\n"
        "### Instruction:\nCompare <|audio|> and <|audio|>.\n\n### Response:\n{Both bark.</s>}\n\n",
        "<s>### Instruction:\nWhat is heard?\n\n### Response:\n",
    ),
    "mistral": (
        "<s>[INST] Be brief.\n\n<|audio|>What is heard? [/INST]{ A dog.</s>}"
        "[INST] Compare <|audio|> and <|audio|>. [/INST]{ Both bark.</s>}",
        "<s>[INST] What is heard? [/INST]",
    ),
    "phi": (
        "<s><|system|>\nBe brief.<|end|>\n<|user|>\n<|audio|>What is heard?<|end|>\n<|assistant|>\n{A dog.<|end|>}\n"
        "<|user|>\nCompare <|audio|> and <|audio|>.<|end|>\n<|assistant|>\n{Both bark.<|end|>}\n",
        "<s><|user|>\nWhat is heard?<|end|>\n<|assistant|>\n",
    ),
    "plain": (
        "<s>Be brief.\nUser: <|audio|>What is heard?\nAssistant:{ A dog.</s>}\n"
        "User: Compare <|audio|> and <|audio|>.\nAssistant:{ Both bark.</s>}\n",
        "<s>User: What is heard?\nAssistant:",
    ),
    "qwen2_audio": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nAudio 1: <|audio_bos|><|audio|><|audio_eos|>\nWhat is heard?<|im_end|>\n"
        "<|im_start|>assistant\n{A dog.<|im_end|>}\n"
        "<|im_start|>user\nCompare Audio 2: <|audio_bos|><|audio|><|audio_eos|>\n and "
        "Audio 3: <|audio_bos|><|audio|><|audio_eos|>\n.<|im_end|>\n"
        "<|im_start|>assistant\n{Both bark.<|im_end|>}\n",
        "<|im_start|>user\nWhat is heard?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "salmonn": (
        "<s>Be brief.\nUSER: <Speech><|audio|></Speech> What is heard?\nASSISTANT:{ A dog.</s>}\n"
        "USER: Compare <Speech><|audio|></Speech> and <Speech><|audio|></Speech> .\nASSISTANT:{ Both bark.</s>}\n",
        "<s>USER: What is heard?\nASSISTANT:",
    ),
    "voxtral": (
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST][BEGIN_AUDIO]<|audio|>What is heard?[/INST]{A dog.</s>}"
        "[INST]Compare [BEGIN_AUDIO]<|audio|> and [BEGIN_AUDIO]<|audio|>.[/INST]{Both bark.</s>}",
        "<s>[INST]What is heard?[/INST]",
    ),
    "vicuna": (
        "<s>Be brief. USER: <|audio|>What is heard? ASSISTANT:{ A dog.</s>}"
        "USER: Compare <|audio|> and <|audio|>. ASSISTANT:{ Both bark.</s>}",
        "<s>USER: What is heard? ASSISTANT:",
    ),
}


def rendered(name: str, messages, **options) -> str:
    segments = ChatTemplate.load(name).render(messages, bos_token="<s>", eos_token="</s>", **options)
    text = "".join(f"{{{segment.text}}}" if segment.supervised else segment.text for segment in segments)
    return text.replace("}{", "")


def test_every_template_has_its_golden_texts():
    assert sorted(GOLDEN) == sorted(template_names())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_training_text(name):
    assert rendered(name, CONVERSATION) == GOLDEN[name][0]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_prompt(name):
    assert rendered(name, PROMPT, add_generation_prompt=True) == GOLDEN[name][1]


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_transformers_renders_the_same(name, add_generation_prompt):
    template = ChatTemplate.load(name)
    messages = CONVERSATION[:-1] if add_generation_prompt else CONVERSATION
    ours = template.render(messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=add_generation_prompt)
    theirs = _by_transformers(template.source, messages, add_generation_prompt)
    assert "".join(segment.text for segment in ours) == theirs


@pytest.mark.parametrize("name", GOLDEN)
def test_no_system_turn_is_invented(name):
    assert "Be brief" not in rendered(name, CONVERSATION[1:])
    assert rendered(name, CONVERSATION[1:]).count("{") == 2


def _by_transformers(source: str, messages, add_generation_prompt: bool) -> str:
    conversation = [
        {
            "role": message.role,
            "content": [
                {"type": "audio"} if isinstance(part, Clip) else {"type": "text", "text": part}
                for part in message.parts
            ],
        }
        for message in messages
    ]
    texts, _ = render_jinja_template(
        conversations=[conversation],
        chat_template=source,
        add_generation_prompt=add_generation_prompt,
        bos_token="<s>",
        eos_token="</s>",
    )
    return texts[0]
