"""Reading tokens back: stops, and pieces of text that join to the whole."""

from __future__ import annotations

import pytest
import torch

from lalm.errors import ModelError
from lalm.inference.decoding import AnswerStream, cut_at_stop, decoding_arguments, read_answer
from lalm.recipe.schema import GenerationSection

TEXTS = ["  Ein Vögelchen.  ", "鳥が鳴く 🐦🐦 zwei", "a\n\n b \n", "é" * 5, "naïve   spaces  ", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_bytes_join_to_the_stripped_text(tiny, text):
    processor = tiny[1]
    ids = [*processor.tokenizer.encode(text, add_special_tokens=False), processor.stop_token_ids[0]]
    pieces, count = [], []
    stream = AnswerStream(processor, on_text=pieces.append, on_token=lambda: count.append(1))
    stream.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(pieces) == text.strip() == read_answer(processor, ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(count) == len(ids)


def test_bytes_that_are_no_text_come_at_the_end(tiny):
    processor = tiny[1]
    ids = processor.tokenizer.encode("é", add_special_tokens=False)[:1]
    pieces = []
    stream = AnswerStream(processor, on_text=pieces.append, on_token=lambda: None)
    for value in ([[0]], ids):
        stream.put(torch.tensor(value))
    assert pieces == []
    stream.end()
    assert pieces == ["\N{REPLACEMENT CHARACTER}"]


def test_cut_at_stop_keeps_the_stop():
    assert cut_at_stop([5, 6, 2, 2, 9], {2, 3}) == [5, 6, 2]
    assert cut_at_stop([5, 6], {2}) == [5, 6]
    assert cut_at_stop([], {2}) == []


def test_greedy_leaves_nothing_to_a_base_models_own_defaults():
    arguments = decoding_arguments(GenerationSection(), [7, 8])
    assert (arguments.do_sample, arguments.num_beams, arguments.repetition_penalty) == (False, 1, 1.0)
    assert (arguments.eos_token_id, arguments.pad_token_id) == ([7, 8], 7)
    sampled = decoding_arguments(GenerationSection(temperature=0.7, top_p=0.9), [7])
    assert (sampled.do_sample, sampled.temperature, sampled.top_p, sampled.top_k) == (True, 0.7, 0.9, 0)


def test_a_model_that_cannot_stop_is_refused():
    with pytest.raises(ModelError, match="no token ends an answer"):
        decoding_arguments(GenerationSection(), [])
