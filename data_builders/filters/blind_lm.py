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
            answers = [f" {option}" for option in question.options]
            for place, found in enumerate(self.log_likelihoods(prompt, answers)):
                totals[place] += found / self.orders
        return totals

    def log_likelihoods(self, prompt: str, answers: Sequence[str]) -> list[float]:
        """The mean log-likelihood of a token of each answer after the prompt, in one padded batch."""
        import torch

        prompt_ids = self.tokenizer(prompt, add_special_tokens=True)["input_ids"]
        answer_ids = [self.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        longest = max(map(len, answer_ids))
        rows = [prompt_ids + ids + [0] * (longest - len(ids)) for ids in answer_ids]
        lengths = torch.tensor([[len(ids)] for ids in answer_ids])
        real = (torch.arange(longest) < lengths).to(self.model.device)
        ids = torch.tensor(rows, device=self.model.device)
        mask = torch.cat([torch.ones(len(rows), len(prompt_ids), device=real.device, dtype=torch.bool), real], dim=1)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask.long()).logits[:, len(prompt_ids) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(2, ids[:, len(prompt_ids) :, None])[..., 0]
        return ((chosen * real).sum(1) / real.sum(1)).tolist()


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
