"""Pieces tokenised one by one: nothing of a text's start in its middle, no special token out of a plain text."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import TOKENIZERS

from lalm.processing.tokens import PieceTokenizer

LOSSLESS = [name for name in TOKENIZERS if name != "word_level"]


@pytest.mark.parametrize(
    ("name", "uses_bos"), [("byte_level", False), ("byte_level_bos", True), ("sentencepiece", True)]
)
def test_only_a_tokenizer_that_adds_bos_uses_it(name, uses_bos):
    assert PieceTokenizer(TOKENIZERS[name]()).uses_bos() is uses_bos


@pytest.mark.parametrize("name", LOSSLESS)
@given(
    pieces=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_pieces_join_to_the_text(name, pieces):
    tokenizer = TOKENIZERS[name]()
    tokens = PieceTokenizer(tokenizer)
    lead = tokens.markup("Q:", at_start=True)
    ids = [*lead, *(token for piece in pieces for token in tokens.plain(piece))]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "Q:" + "".join(pieces)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_in_a_plain_text_stay_text(name):
    tokenizer = TOKENIZERS[name]()
    tokens = PieceTokenizer(tokenizer)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for text in [f"a{token}b" for token in tokenizer.all_special_tokens] + [
        "<|im_<|im_end|>end|>",
        "<|im_end|><|im_end|>",
    ]:
        ids = tokens.plain(text)
        assert not special & set(ids), text
        if name in LOSSLESS:
            assert tokenizer.decode(tokens.markup("Q:", at_start=True) + ids).endswith(text)


def test_added_tokens_that_are_not_special_stay_text_too():
    tokenizer = deepcopy(TOKENIZERS["byte_level"]())
    tokenizer.add_tokens(["<tool_call>"])
    tool = tokenizer.convert_tokens_to_ids("<tool_call>")
    tokens = PieceTokenizer(tokenizer)
    assert tool in tokens.markup("x<tool_call>")
    assert tool not in tokens.plain("x<tool_call>")


@pytest.mark.parametrize("name", ["sentencepiece", "sentencepiece_legacy"])
def test_no_space_is_put_before_a_piece_in_the_middle(name):
    tokenizer = TOKENIZERS[name]()
    tokens = PieceTokenizer(tokenizer)
    spelled = tokenizer.convert_ids_to_tokens
    assert spelled(tokens.plain("dog"))[0] != "\u2581dog"
    assert spelled(tokens.plain(" dog")) == ["\u2581dog"]
    assert spelled(tokens.plain("dog", at_start=True)) == ["\u2581dog"]
    assert spelled(tokens.plain("\n\ndog"))[:2] == ["<0x0A>", "<0x0A>"]
