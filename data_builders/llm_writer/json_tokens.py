"""Holds a transformers model in this process to a JSON schema, token by token, as servers do with `response_format`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lalm.errors import MissingPackageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

AllowedTokens = Callable[[int, "Tensor"], list[int]]
"""Row of a batch and its ids so far `[L]` -> the ids that may follow: `prefix_allowed_tokens_fn` of `generate`."""


class JsonTokens:
    """What a tokenizer's tokens spell, read once; a schema then takes no time to begin with.

    Raises:
        MissingPackageError: without lm-format-enforcer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        try:
            import lmformatenforcer
        except ImportError:
            raise MissingPackageError("lm-format-enforcer", "holding a model to JSON", "data") from None
        self._package = lmformatenforcer
        # The package's own reading of transformers' tokenizers fails on transformers 5 (lm-format-enforcer 0.11.3).
        self._tokens = lmformatenforcer.TokenEnforcerTokenizerData(
            list(_spelled(tokenizer)),
            lambda ids: tokenizer.decode(ids).rstrip("�"),
            tokenizer.eos_token_id,
            False,
            len(tokenizer),
        )

    def allowed(self, schema: dict[str, Any]) -> AllowedTokens:
        """For one reply; the prompt may hold anything."""
        enforcer = self._package.TokenEnforcer(self._tokens, self._package.JsonSchemaParser(schema))

        def allowed(_: int, ids: Tensor) -> list[int]:
            return enforcer.get_allowed_tokens(ids.tolist()).allowed_tokens

        return allowed


def _spelled(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, str, bool]]:
    """Id, text within a sentence, and whether it opens a word: decoded behind a digit, so that no space is lost."""
    [zero] = tokenizer.encode("0", add_special_tokens=False)[-1:]
    special = set(tokenizer.all_special_ids)
    for index in range(len(tokenizer)):
        if index not in special:
            within = tokenizer.decode([zero, index])[1:]
            yield index, within, len(within) > len(tokenizer.decode([index]))
