"""A model of the shape that training sees: parts, adapter strength, a token-weighted loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fork_server import Runs
from torch import Tensor, nn
from torch.utils.data import Dataset

from lalm.recipe.schema import Recipe, StageSection


class TinyModel(nn.Module):
    """Embedding (language model), projector with a norm, adapter with dropout, encoder."""

    accepts_loss_kwargs = True

    def __init__(self, vocab: int = 11, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.language_model = nn.ModuleDict({"embed": nn.Embedding(vocab, width), "head": nn.Linear(width, vocab)})
        self.multi_modal_projector = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.lora_a = nn.Linear(width, 4, bias=False)
        self.lora_b = nn.Linear(4, width, bias=False)
        self.dropout = nn.Dropout(0.3)
        self.audio_tower = nn.Linear(width, width)
        self.scale = 1.0

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        prefixes = {
            "encoder": "audio_tower",
            "projector": "multi_modal_projector",
            "lora": "lora_",
            "language_model": "language_model",
        }
        named = list(self.named_parameters())
        return {part: [(n, p) for n, p in named if n.startswith(prefix)] for part, prefix in prefixes.items()}

    def set_lora_scale(self, scale: float) -> None:
        self.scale = scale

    def forward(self, input_ids: Tensor, labels: Tensor, num_items_in_batch=None) -> dict[str, Tensor]:
        hidden = self.language_model["embed"](input_ids)
        hidden = hidden + self.multi_modal_projector(self.audio_tower(hidden))
        hidden = hidden + self.scale * self.lora_b(self.dropout(self.lora_a(hidden)))
        logits = self.language_model["head"](hidden)[:, :-1]
        targets = labels[:, 1:]
        total = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        count = (targets != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count}


class TinyBatches(Dataset):
    """Records of differing lengths, cut into `micro_batches` pieces a step; the records of a step stay the same."""

    def __init__(self, steps: int, micro_batches: int, batch_records: int = 4):
        generator = torch.Generator().manual_seed(1)
        self.items = []
        for step in range(steps):
            records = []
            for number in range(batch_records):
                ids = torch.randint(0, 11, (1, 7), generator=generator)
                labels = ids.clone()
                labels[:, : 1 + (step + number) % 5] = -100
                records.append((f"r{step}-{number}", ids, labels))
            size = batch_records // micro_batches
            for start in range(0, batch_records, size):
                names, ids, labels = zip(*records[start : start + size], strict=True)
                self.items.append(
                    {
                        "input_ids": torch.cat(ids),
                        "labels": torch.cat(labels),
                        "record_ids": list(names),
                        "audio_seconds": 0.5 * len(names),
                    }
                )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return dict(self.items[index])


@pytest.fixture
def tiny_model() -> TinyModel:
    return TinyModel()


@pytest.fixture
def tiny_batches() -> type[TinyBatches]:
    return TinyBatches


@pytest.fixture
def make_stage():
    def make(**changes) -> StageSection:
        values = {
            "name": "align",
            "learning_rates": {"projector": 0.01, "lora": 0.02},
            "steps": 12,
            "warmup_steps": 3,
            "save_every_steps": 4,
        }
        return StageSection.model_validate({**values, **changes})

    return make


SAMPLE_RATE_HZ = 16000


def write_clips(folder: Path, count: int = 8) -> Path:
    """Tones of four pitches in `folder`, with two questions about each in `train.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    lines = []
    for number in range(count):
        time = np.arange(int(SAMPLE_RATE_HZ * (0.3 + 0.1 * (number % 5)))) / SAMPLE_RATE_HZ
        wave = 0.4 * np.sin(2 * np.pi * (100 * 3 ** (number % 4)) * time) + 0.01 * noise.standard_normal(len(time))
        soundfile.write(folder / f"clip{number}.wav", wave.astype(np.float32), SAMPLE_RATE_HZ)
        for question, answer in (("Pitch?", "abcd"[number % 4]), ("Letters?", "wxyz"[number % 4] * 2)):
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            record = {"id": f"{number}-{answer}", "audio": [f"clip{number}.wav"], "turns": turns, "task": question[:-1]}
            lines.append(json.dumps(record))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tiny_recipe(folder: Path, **changes) -> dict:
    """A recipe of random parts over the clips in `folder / "data"`, with two short stages."""
    values = {
        "name": "tiny",
        "encoders": [
            {
                "name": "whisper",
                "base": "random",
                "padding": "real",
                "random_sizes": {
                    "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64},
            }
        ],
        "projector": {"name": "mlp", "stack_steps": 5, "hidden_size": 32},
        "language_model": {
            "base": "random",
            "template": "chatml",
            "dtype": "float32",
            "lora": {"rank": 4, "dropout": 0.1},
            "random_sizes": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 4},
        },
        "data": {"folder": str(folder / "data"), "sources": {"tones": {"records": "train.jsonl"}}},
        "stages": [
            {"name": "align", "learning_rates": {"projector": 0.01}, "steps": 6, "batch_records": 4,
             "micro_batch_tokens": 400, "save_every_steps": 2, "warmup_steps": 2},
            {"name": "instruct", "learning_rates": {"projector": 0.005, "lora": 0.005}, "steps": 6, "batch_records": 4,
             "micro_batch_tokens": 80, "save_every_steps": 3},
        ],
        "output": {"folder": str(folder / "run"), "log_to": []},
    }  # fmt: skip
    return {**values, **changes}


@pytest.fixture
def make_recipe(tmp_path, monkeypatch):
    """`make_recipe(folder=..., key=value)`; the cache is a folder of the test's own."""
    monkeypatch.setenv("LALM_CACHE", str(tmp_path / "cache"))
    write_clips(tmp_path / "data")

    def make(run: str = "run", **changes) -> Recipe:
        values = tiny_recipe(tmp_path, **changes)
        return Recipe.model_validate({**values, "output": {**values["output"], "folder": str(tmp_path / run)}})

    return make


@pytest.fixture(scope="session")
def runs():
    """`runs(recipe, processes)`: one server forks the processes of every test's runs."""
    server = Runs()
    yield server
    server.close()
