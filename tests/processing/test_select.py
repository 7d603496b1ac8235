"""`template: auto`: the format that the tokenizer's own tokens tell."""

from __future__ import annotations

from copy import deepcopy

import pytest
from tiny_tokenizers import llama_sentencepiece, word_level

from lalm.errors import ModelError
from lalm.processing.select import choose_template


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (["<|im_start|>", "<|im_end|>"], "chatml"),
        (["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "llama3"),
        (["<start_of_turn>", "<end_of_turn>"], "gemma"),
        (["<|user|>", "<|assistant|>", "<|end|>"], "phi"),
        (["[INST]", "[/INST]"], "mistral"),
        (["<extra_id_0>", "<extra_id_99>"], "flan"),
        ([], "plain"),
    ],
)
def test_by_special_tokens(tokens, name):
    tokenizer = deepcopy(llama_sentencepiece())
    tokenizer.add_tokens(tokens, special_tokens=True)
    assert choose_template(tokenizer) == name


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("{{ '[INST] <<SYS>>' }}", "llama2"),
        ("{{ 'USER: x ASSISTANT:' }}", "vicuna"),
        ("{{ '[INST] ' }}", "mistral"),
        ("{{ '<|user|>\\n' + message['content'] + eos_token }}{{ '<|assistant|>\\n' }}", "zephyr"),
        ("{{ '<|user|>\\n' + message['content'] + '\\n' }}{{ '<|assistant|>\\n' }}", "falcon"),
    ],
)
def test_by_the_words_of_the_tokenizers_own_template(own, name):
    tokenizer = deepcopy(llama_sentencepiece())
    tokenizer.chat_template = own
    assert choose_template(tokenizer) == name


def test_without_an_end_token_the_names_are_listed():
    tokenizer = deepcopy(word_level())
    tokenizer.eos_token = None
    vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if not token.startswith("<|im_")}
    tokenizer.get_vocab = lambda: vocabulary
    with pytest.raises(ModelError, match=r"no end token.*alpaca, chatml.*vicuna"):
        choose_template(tokenizer)
