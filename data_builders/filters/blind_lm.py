"""A blind scorer over a local causal language model: what the world knows about a question, without the audio.

The options are listed in several seeded orders, and an option's score is the mean log-likelihood of its tokens as the
answer, averaged over the orders, so that no place in the list is favoured. Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.clips import seeded
from lalm.errors import ModelError

if TYPE_CHECKING:
    from data_builders.filters.blind import Closed

PROMPT = "Question about a sound recording: {question}\nOptions: {options}\nAnswer:"


class LocalModelBlind:
    """Scores options by the likelihood that a causal language model gives them."""

    def __init__(self, model: Any, tokenizer: Any, *, orders: int = 2, seed: int = 0):
        """`model` is a transformers causal language model with its tokenizer; `orders` lists of options are asked."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.orders = orders
        self.seed = seed

    def fit(self, questions: Callable[[], Iterable[Closed]]) -> None:
        """Learns nothing: the model is asked as it is."""

    def score(self, question: Closed) -> Sequence[float]:
        """The mean log-likelihood of a token of each option, over the orders."""
        totals = [0.0] * len(question.options)
        for order in range(self.orders):
            listed = list(question.options)
            seeded(self.seed, "blind", question.id, order).shuffle(listed)
            prompt = PROMPT.format(question=question.text, options=", ".join(listed))
            for place, option in enumerate(question.options):
                totals[place] += self._log_likelihood(prompt, f" {option}") / self.orders
        return totals

    def _log_likelihood(self, prompt: str, answer: str) -> float:
        import torch

        prompt_ids = self.tokenizer(prompt, add_special_tokens=True)["input_ids"]
        answer_ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompt_ids + answer_ids], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(1, ids[0, len(prompt_ids) :, None])
        return float(chosen.mean())


def load_local_model(folder: Path, **options: Any) -> LocalModelBlind:
    """A scorer from a folder that transformers saved; nothing is downloaded.

    Raises:
        ModelError: if the folder holds no causal language model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: no causal language model can be loaded from it ({error}). Name a folder that holds one."
        ) from None
    return LocalModelBlind(model, tokenizer, **options)
