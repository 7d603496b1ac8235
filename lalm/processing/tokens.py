"""Pieces of one text -> ids, each piece on its own: what a tokenizer does at the start of a text is kept out of its
middle, and what looks like a special token in somebody's text stays text.
"""

from __future__ import annotations

import re
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

_LEADS = ("\n", "|", "a")
"""Characters to put in front of a piece so that the tokenizer sees it in the middle of a text; tried in turn."""
_PROBES = ("a", "1", "Hello there", "<b>")


class PieceTokenizer:
    """Tokenises pieces of text whose ids are then concatenated."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._leads = [(lead, self._encode(lead)) for lead in _LEADS]
        self._has_start = any(self._after_lead(probe) != self._encode(probe) for probe in _PROBES)
        known = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
        added = sorted(text for text in known if len(text) > 1 and not text.isspace())
        # A look-ahead finds occurrences that overlap; each is cut behind its first character.
        self._added = re.compile("|".join(f"(?={re.escape(text)})" for text in added)) if added else None
        self._markup_ids: dict[tuple[str, bool], list[int]] = {}

    def uses_bos(self) -> bool:
        """Whether the tokenizer itself opens a text with its BOS token; many have one and never use it."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and list(self.tokenizer("a")["input_ids"])[:1] == [bos]

    def markup(self, text: str, at_start: bool = False) -> list[int]:
        """Ids of a template's text, special tokens included. `at_start`: nothing stands before it.

        They are kept: a template writes the same few texts again and again.
        """
        if (text, at_start) not in self._markup_ids:
            ids = self._encode(text) if at_start or not self._has_start else self._after_lead(text)
            self._markup_ids[text, at_start] = ids
        return self._markup_ids[text, at_start]

    def plain(self, text: str, at_start: bool = False) -> list[int]:
        """Ids of somebody's text, in which no special or added token is recognised."""
        ids: list[int] = []
        for piece in self._cut(text):
            if not self._has_start or (at_start and not ids):
                ids += self._encode(piece, split_special_tokens=True)
            else:
                ids += self._after_lead(piece, split_special_tokens=True)
        return ids

    def _cut(self, text: str) -> list[str]:
        """The text, cut inside everything that the tokenizer would take for an added token."""
        if self._added is None:
            return [text]
        cuts = [0, *(match.start() + 1 for match in self._added.finditer(text)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts) if end > start]

    def _after_lead(self, text: str, **options) -> list[int]:
        """Ids of a text that stands behind another.

        Sentencepiece and metaspace tokenizers put a space before a text. So a lead is tokenised with it and taken off.
        """
        for lead, lead_ids in self._leads:
            ids = self._encode(lead + text, **options)
            if ids[: len(lead_ids)] == lead_ids:
                return ids[len(lead_ids) :]
        return self._encode(text, **options)

    def _encode(self, text: str, **options) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"])
