"""What the systems that are measured against have in common: the same records, the same weights where they apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lalm.audio.io import load_audio
from lalm.bench.sizes import Audio, Sizes, bench_recipe
from lalm.bench.workload import SAMPLE_RATE_HZ, Workload, write_workload
from lalm.data.records import Record
from lalm.model.build import build_model
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.recipe.schema import LoraSection

IGNORED = -100


@dataclass(frozen=True)
class PeerRun:
    """One run of a peer: `num_steps` optimizer steps over the records in file order, again and again."""

    sizes: Sizes
    workload: Workload
    num_steps: int = 2
    batch_records: int = 8
    autocast: bool = False
    """bfloat16 autocast over float32 weights; else float32."""


@dataclass(frozen=True)
class Sample:
    """One record with its clip `[S]`."""

    question: str
    answer: str
    wave: np.ndarray


class Samples(Dataset):
    """Records in file order; each clip is decoded when its record is asked for."""

    def __init__(self, records: Sequence[Record], folder: Path):
        self.records, self.folder = records, folder

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        wave = load_audio(self.folder / record.audio[0], SAMPLE_RATE_HZ)
        return Sample(record.question, record.answer or "", wave)


@dataclass(frozen=True)
class Parts:
    """Our model in float32, whose encoders and language model a peer takes over, and what goes with it."""

    model: LalmForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    samples: Samples
    lora: LoraSection


def build_parts(run: PeerRun, folder: Path, audio: Audio, *, second_encoder: bool = False) -> Parts:
    """Writes the workload into `folder` and builds our model, without adapter, for a peer to take its parts."""
    transformers.utils.logging.set_verbosity_error()
    records = write_workload(folder, run.workload)
    recipe = bench_recipe(run.sizes, folder, audio=audio, second_encoder=second_encoder, float32=True)
    lora = recipe.language_model.lora or LoraSection()
    bare = recipe.language_model.model_copy(update={"lora": None, "attention": "sdpa"})
    model, processor = build_model(recipe.model_copy(update={"language_model": bare}))
    return Parts(model, processor.tokenizer, Samples(records, folder), lora)


def text_sizes(parts: Parts) -> dict[str, Any]:
    """The configuration of our language model, as a dictionary."""
    config = parts.model.config.text_config
    assert isinstance(config, PreTrainedConfig)
    return config.to_dict()


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of several lengths -> `[B, L]`, filled at the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
