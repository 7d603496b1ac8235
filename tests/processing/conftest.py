"""Processors that several files of this folder test."""

from __future__ import annotations

import pytest
from tiny_tokenizers import POSITION_RULE, processor_of
from transformers import AutoTokenizer

from lalm.audio.features import WhisperFrontEnd
from lalm.processing.processor import LalmProcessor
from lalm.resources import cache_folder


@pytest.fixture
def processor() -> LalmProcessor:
    """ChatML on byte-level BPE."""
    return processor_of("byte_level", "chatml")


@pytest.fixture(scope="session")
def smollm2() -> LalmProcessor:
    """A processor around the tokenizer of SmolLM2: the converted folder, or the GGUF file itself."""
    converted = sorted(path.parent for path in cache_folder().glob("converted/[Ss]mol[Ll][Mm]2*/tokenizer.json"))
    packed = sorted(cache_folder().rglob("[Ss]mol[Ll][Mm]2*.gguf"))
    if converted:
        tokenizer = AutoTokenizer.from_pretrained(converted[0])
    elif packed:
        tokenizer = AutoTokenizer.from_pretrained(packed[0].parent, gguf_file=packed[0].name)
    else:
        pytest.skip("SmolLM2 is not in the cache; fetch it with: lalm models fetch")
    return LalmProcessor.create(tokenizer, front_ends=[WhisperFrontEnd()], position_rule=POSITION_RULE)
