"""Registers `lalm`'s classes with transformers' Auto classes; importing this file is what does it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor

from lalm.model.configuration import LalmConfig
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.processing.processor import LalmProcessor

AutoConfig.register("lalm", LalmConfig, exist_ok=True)
for _auto in (AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM):
    _auto.register(LalmConfig, LalmForConditionalGeneration, exist_ok=True)
AutoProcessor.register(LalmConfig, LalmProcessor, exist_ok=True)

__all__ = ["LalmConfig", "LalmForConditionalGeneration", "LalmProcessor"]
