"""A processor and an encoder small enough to follow by hand, and makers of records, clips and recipes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import soundfile
import torch

from lalm.data.examples import Example
from lalm.data.records import Record
from lalm.recipe.schema import Recipe

RATE = 16000
AUDIO_ID, END_ID, BOS_ID, ANSWER_ID = 1, 2, 3, 4
VOCABULARY = 64
WIDTH = 6


@dataclass
class Encoded:
    input_ids: list[int]
    labels: list[int]
    audio_spans: list[tuple[int, int]]
    truncated: bool = False


class FakeProcessor:
    """One token a character; a clip occupies one position for each started 0.1 s."""

    reads_question = False
    step_rule = None

    sampling_rate = RATE
    audio_token_id = AUDIO_ID
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=END_ID)

    def num_positions(self, num_samples):
        return -(-num_samples // (RATE // 10))

    def encode_turns(self, turns, num_positions, max_text_tokens=None, train_on_inputs=False):
        ids, labels, spans = [BOS_ID], [-100], []
        waiting = list(num_positions)
        for turn in turns:
            for count in waiting:
                spans.append((len(ids), len(ids) + count))
                ids += [AUDIO_ID] * count
                labels += [-100] * count
            waiting = []
            text = [5 + ord(character) % (VOCABULARY - 5) for character in turn.content]
            if turn.role == "assistant":
                ids += [ANSWER_ID, *text, END_ID]
                labels += [-100, *text, END_ID]
            else:
                ids += text
                labels += text if train_on_inputs else [-100] * len(text)
        return Encoded(ids, labels, spans)

    def audio_inputs(self, waveforms):
        """Features [M = 1, F]: means of 160 samples."""
        features = []
        for wave in waveforms:
            padded = np.pad(wave, (0, -len(wave) % 160)).reshape(-1, 160).mean(axis=1)
            features.append(torch.from_numpy(padded)[None])
        lengths = torch.tensor([item.shape[1] for item in features])
        stacked = torch.zeros(len(features), 1, int(lengths.max()))
        for row, item in zip(stacked, features, strict=True):
            row[:, : item.shape[1]] = item
        return {"input_features": [stacked], "feature_lengths": [lengths], "chunk_counts": torch.ones(len(features))}


def fake_encode(inputs):
    """States [n, T, WIDTH]: one step for every 10 frames; depends on nothing but the clip."""
    features, lengths = inputs["input_features"][0], inputs["feature_lengths"][0]
    steps = -(-lengths // 10)
    padded = torch.nn.functional.pad(features[:, 0], (0, int(steps.max()) * 10 - features.shape[2]))
    means = padded.reshape(len(features), -1, 10).mean(dim=2)
    return torch.sin(means[:, :, None] * torch.arange(1, WIDTH + 1) * 3), steps


def make_record(name, clips, question, answer, **more):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Record.model_validate({"id": name, "audio": clips, "turns": turns, **more})


def make_example(name, clips, question, answer, num_positions, **options):
    """An example without any file: clips are names, and their own hashes."""
    record = make_record(name, clips, question, answer)
    encoded = FakeProcessor().encode_turns(record.turns, num_positions, **options)
    ids, labels = np.asarray(encoded.input_ids, np.int32), np.asarray(encoded.labels, np.int32)
    return Example(record, "s", ids, labels, tuple(encoded.audio_spans), record.audio, record.audio)


def write_clip(path, seconds, seed=0, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).clip(-1, 1)
    soundfile.write(path, wave, rate)
    return path


def make_recipe(folder, *, data=(), stage=()):
    return Recipe.model_validate(
        {
            "name": "tiny",
            "encoders": [{"name": "whisper", "base": "random"}],
            "projector": {"name": "mlp"},
            "language_model": {"base": "random"},
            "data": {"folder": folder, "sources": {"all": {"records": "data.jsonl"}}, **dict(data)},
            "stages": [
                {
                    "name": "one",
                    "learning_rates": {"projector": 1e-3},
                    "batch_records": 6,
                    "micro_batch_tokens": 128,
                    **({} if "steps" in dict(stage) else {"epochs": 1}),
                    **dict(stage),
                }
            ],
        }
    )
