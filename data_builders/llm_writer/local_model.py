"""A transformers model in this process, with the interface of a server. One reply at a time; costs nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.llm_writer.endpoint import LlmRequest, Reply, RequestRefused
from data_builders.llm_writer.json_tokens import JsonTokens
from lalm.errors import ModelError
from lalm.resources import find_base

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalModel:
    """`base` as in a recipe: a folder, a hub name, or `package:NAME`. Loaded at the first request.

    `structured`: a reply is held to the request's JSON schema token by token.

    Raises:
        ModelError: if there is no such base.
    """

    def __init__(self, base: str, *, structured: bool = True):
        self.model = base
        self._structured = structured
        self._found = find_base(base)
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._json: JsonTokens | None = None
        self._lock = threading.Lock()

    async def ask(self, request: LlmRequest) -> Reply:
        """See `Endpoint.ask`."""
        return await asyncio.to_thread(self._answer, request)

    async def close(self) -> None:
        """Lets the weights go."""
        self._loaded = None

    def _answer(self, request: LlmRequest) -> Reply:
        import torch

        with self._lock:
            self._loaded = self._loaded or load_chat_model(self._found)
            model, tokenizer = self._loaded
            messages = [{"role": role, "content": content} for role, content in request.messages]
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            length = inputs["input_ids"].shape[1]
            room = getattr(model.config, "max_position_embeddings", None)
            if room is not None and length + request.sampling.max_tokens > room:
                raise RequestRefused(
                    f"{length} prompt tokens and {request.sampling.max_tokens} for the reply are more than the model's "
                    f"{room} positions"
                )
            drawn: dict[str, Any] = {"do_sample": False}
            if request.sampling.temperature > 0:
                drawn = {
                    "do_sample": True,
                    "temperature": request.sampling.temperature,
                    "top_p": request.sampling.top_p,
                    "top_k": 0,
                }
            if self._structured and request.schema is not None:
                self._json = self._json or JsonTokens(tokenizer)
                drawn["prefix_allowed_tokens_fn"] = self._json.allowed(request.schema)
            torch.manual_seed(request.sampling.seed)
            with torch.inference_mode():
                ids = model.generate(**inputs, max_new_tokens=request.sampling.max_tokens, **drawn)[0, length:]
            text = tokenizer.decode(ids, skip_special_tokens=True)
            ended = int(ids[-1]) in _ends(model)
            return Reply(text, length, len(ids), finish="stop" if ended else "length")


def load_chat_model(found: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer from a folder, GGUF included, or a hub name.

    Raises:
        ModelError: if the tokenizer has no chat template, so that the model does not follow instructions.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = sorted(Path(found).glob("*.gguf")) if isinstance(found, Path) and found.is_dir() else []
    options = {"gguf_file": gguf[0].name} if gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(str(found), **options)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{found}: its tokenizer has no chat template. Name a model that was tuned to follow instructions."
        )
    model = AutoModelForCausalLM.from_pretrained(str(found), **options).eval()
    return model, tokenizer


def _ends(model: PreTrainedModel) -> set[int]:
    end = model.generation_config.eos_token_id
    return set(end) if isinstance(end, list) else {end}
