"""Tiny curricula of published shape for the tests, as overrides of recipes/tiny.yaml, and the records they train on.

SALMONN (arXiv 2310.13289): pre-training on transcripts and captions, instruction tuning, activation tuning on long
answers. LTU (arXiv 2305.10790): projector alone on classification, then the encoder and the adapter too, closed
questions, closed and open ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from lalm.recipe.load import load_recipe
from lalm.recipe.schema import Recipe

SAMPLE_RATE_HZ = 16000
SMALL = {"batch_records": 4, "micro_batch_tokens": 200, "save_every_steps": 2, "warmup_steps": 1}
SALMONN = [
    {"name": "pretrain", "learning_rates": {"projector": 0.01, "lora": 0.005}, "tasks": ["transcription", "caption"],
     "steps": 6, **SMALL},
    {"name": "instruct", "learning_rates": {"projector": 0.005, "lora": 0.005}, "loss_per": "record", "steps": 6,
     "evaluate_every_steps": 3, "evaluate_splits": ["test"], **SMALL},
    {"name": "activate", "learning_rates": {"lora": 0.002}, "lora_scale": 0.5, "min_answer_words": 6, "steps": 4,
     **SMALL},
]  # fmt: skip
LTU = [
    {"name": "classify", "learning_rates": {"projector": 0.01}, "tasks": ["sound_name"], "train_on_inputs": True,
     "steps": 4, **SMALL},
    {"name": "perceive", "learning_rates": {"encoder": 0.002, "projector": 0.005, "lora": 0.005},
     "tasks": ["sound_name"], "train_on_inputs": True, "steps": 4, **SMALL},
    {"name": "closed", "learning_rates": {"encoder": 0.002, "projector": 0.005, "lora": 0.005},
     "tasks": ["sound_name", "transcription"], "train_on_inputs": True, "steps": 4, **SMALL},
    {"name": "open", "learning_rates": {"encoder": 0.002, "projector": 0.005, "lora": 0.005}, "train_on_inputs": True,
     "task_weights": {"story": 2.0}, "steps": 6, **SMALL},
]  # fmt: skip
CURRICULA = {"salmonn": SALMONN, "ltu": LTU}
NAMES = ("low hum", "high hum", "low hiss", "high hiss")


def write_records(folder: Path, clips: int = 8) -> Path:
    """Hums and hisses in `folder`, four questions about each in train.jsonl; those on the last are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(0), []
    for clip in range(clips):
        time = np.arange(int(SAMPLE_RATE_HZ * (0.3 + 0.1 * (clip % 4)))) / SAMPLE_RATE_HZ
        name = NAMES[clip % 4]
        tone = np.sin(2 * np.pi * (3000 if "high" in name else 200) * time)
        wave = (0.1 if "hiss" in name else 0.01) * rng.standard_normal(len(time)) + 0.3 * tone
        soundfile.write(folder / f"{clip}.wav", wave.astype(np.float32), SAMPLE_RATE_HZ)
        pairs = {
            "sound_name": ("Which sound?", name),
            "transcription": ("Write it.", "mm" if "hum" in name else "ss"),
            "caption": ("Describe.", f"a {name}"),
            "story": ("Tell a tale.", f"once a {name} went on and on"),
        }
        for task, (question, answer) in pairs.items():
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append({"id": f"{clip}-{task}", "audio": [f"{clip}.wav"], "turns": turns, "task": task,
                          "split": "test" if clip == clips - 1 else "train"})  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def tiny_curriculum(folder: Path, run: str, curriculum: str, *overrides: str, dropout: float = 0.1) -> Recipe:
    """recipes/tiny.yaml with the stages of a curriculum over `folder / "data"`, written to `folder / run`."""
    changes = [
        f"data.folder={folder / 'data'}",
        f"output.folder={folder / run}",
        f"stages={json.dumps(CURRICULA[curriculum])}",
        f"language_model.lora.dropout={dropout}",
        # The random encoder of the recipe hears; the LTU one trains, so its states cannot be kept.
        f"data.cache_states={'false' if curriculum == 'ltu' else 'true'}",
        "data.sources.train.splits=[train, test]",
    ]
    return load_recipe("tiny", [*changes, *overrides])
