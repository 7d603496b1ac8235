"""Mistral's tokenizer file, tekken.json: a folder that brings no other one (Voxtral) is read without mistral-common.

transformers turns its byte pairs and special tokens into an ordinary tokenizer. What stands between turns is not in the
file; it is the chat template's to say.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lalm.errors import ModelError

TEKKEN, TOKENIZER = "tekken.json", "tokenizer.json"


def is_tekken_alone(folder: str) -> bool:
    """Whether a folder holds Mistral's tokenizer and not transformers' own beside it."""
    return (Path(folder) / TEKKEN).is_file() and not (Path(folder) / TOKENIZER).exists()


def read_tekken(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder's tekken.json, with `<s>`, `</s>`, `<pad>` and `<unk>` as its special tokens.

    Raises:
        ModelError: if the file cannot be read, or transformers is older than this file needs.
    """
    path = Path(folder) / TEKKEN
    try:
        from transformers.integrations.mistral import convert_tekken_tokenizer

        # A template is given, though none is used: without one transformers would ask mistral-common where it is there.
        return convert_tekken_tokenizer(str(path), chat_template="")
    except ImportError as error:
        raise ModelError(
            f"{path}: cannot be read ({str(error).strip().splitlines()[0]}). Upgrade transformers, or put the model's "
            f"{TOKENIZER} beside it."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is no tokenizer of Mistral's ({error!r}). Copy the model again.") from error
