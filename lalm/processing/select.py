"""Which chat template a base model was made for, told by the special tokens of its tokenizer."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from lalm.errors import ModelError
from lalm.processing.templates import template_names

_BY_TOKENS = (
    (("<|im_start|>", "<|im_end|>"), "chatml"),
    (("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "llama3"),
    (("<start_of_turn>", "<end_of_turn>"), "gemma"),
    (("<|user|>", "<|assistant|>", "<|end|>"), "phi"),
    (("<|start_of_role|>", "<|end_of_role|>"), "granite"),
    (("[INST]", "[/INST]", "[BEGIN_AUDIO]"), "voxtral"),
    (("[INST]", "[/INST]"), "mistral"),
)
"""Tokens that only one format uses."""

_BY_OWN_TEMPLATE = (
    ("<<SYS>>", "llama2"),
    ("[INST]", "mistral"),
    ("ASSISTANT:", "vicuna"),
    ("### Response:", "alpaca"),
    ("'<|user|>\n' + message['content'] + eos_token", "zephyr"),
    ("<|assistant|>", "falcon"),
)
"""Formats without tokens of their own: words in the chat template that the tokenizer brings."""


def choose_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The name of the shipped template that fits a tokenizer; `plain` for a base model without a chat format.

    Raises:
        ModelError: if it has not even an end token; the names to choose from are listed.
    """
    vocabulary = tokenizer.get_vocab()
    if all(token in vocabulary for token in ("<extra_id_0>", "<extra_id_99>")):  # T5's spans
        return "flan"
    for tokens, name in _BY_TOKENS:
        if all(token in vocabulary for token in tokens):
            return name
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    own = own.replace("\\n", "\n")  # written as an escape inside Jinja's strings, or as a line of its own
    for words, name in _BY_OWN_TEMPLATE:
        if words in own:
            return name
    if tokenizer.eos_token is not None:
        return "plain"
    raise ModelError(
        "language_model.template: 'auto' finds no chat format, because the tokenizer has no end token. "
        f"Name one of: {', '.join(template_names())}."
    )
