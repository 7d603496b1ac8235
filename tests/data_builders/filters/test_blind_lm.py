"""Option likelihood over a tiny random language model, against the model's own loss."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_builders.filters.blind import Closed
from data_builders.filters.blind_lm import LocalModelBlind, load_local_model
from lalm.errors import ModelError


class Letters:
    """A tokenizer whose tokens are bytes; a prompt begins with 1."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [1] * add_special_tokens + [2 + byte for byte in text.encode()]}


@pytest.fixture(scope="module")
def scorer():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return LocalModelBlind(LlamaForCausalLM(config), Letters(), orders=3)


QUESTION = Closed("q", "name", "What is heard?", ("dog", "a gong"), 0, "clip")


def test_likelihood_is_the_models_own(scorer):
    prompt, answer = "Which? Answer:", " dog"
    batched = scorer.log_likelihoods(prompt, [" a much longer answer", answer, " x"])
    ids = torch.tensor([Letters()(prompt)["input_ids"] + Letters()(answer, False)["input_ids"]])
    labels = ids.clone()
    labels[:, : -len(answer)] = -100
    with torch.no_grad():
        loss = scorer.model(input_ids=ids, labels=labels).loss
    assert batched[1] == pytest.approx(-float(loss), abs=1e-5)


def test_scores_depend_on_neither_place_nor_call(scorer):
    first = scorer.score(QUESTION)
    assert scorer.score(QUESTION) == first
    assert len(first) == 2
    assert all(score < 0 for score in first)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="no causal language model can be loaded from it"):
        load_local_model(tmp_path)
