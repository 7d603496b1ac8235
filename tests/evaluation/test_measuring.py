"""The three conditions, the figures and the skips, with a stand-in for the model that knows what it was given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lalm.data.records import Record
from lalm.errors import AudioError
from lalm.evaluation import answering, states
from lalm.evaluation.answering import Answering, token_budgets
from lalm.evaluation.measuring import evaluate_model, wilson_interval
from lalm.evaluation.states import ClipStates
from lalm.recipe.schema import GenerationSection

SOUNDS = {"dog.wav": 0.1, "cat.wav": 0.2, "cow.wav": 0.3}
NAMES = {0.1: "dog", 0.2: "cat", 0.3: "cow", 0.0: "dog"}
MODEL = SimpleNamespace(audio_tower=SimpleNamespace(num_units=0))


class FakeClips:
    def load(self, path):
        if path not in SOUNDS:
            raise AudioError(f"{path}: no such file")
        return np.full(100 * round(10 * SOUNDS[path]), SOUNDS[path], np.float32)


class FakeProcessor:
    sampling_rate = 16_000

    def num_positions(self, num_samples):
        return num_samples // 10

    def tokenizer(self, text, add_special_tokens):
        return {"input_ids": text.split()}


@pytest.fixture
def world(monkeypatch):
    """Clips are encoded as their constant value; the model names the sound by it, and hears a dog in silence."""
    seen = {"encoded": [], "budgets": [], "requests": 0}

    def encode_clips(model, processor, waveforms):
        seen["encoded"] += [(len(wave), float(wave[0])) for wave in waveforms]
        return [torch.full((len(wave) // 10, 4), float(wave[0])) for wave in waveforms]

    def generate_answers(model, processor, requests, options, *, batch_size, progress):
        seen["budgets"].append(options.max_new_tokens)
        seen["requests"] += len(requests)
        progress(len(requests))
        return [NAMES[round(float(request.states[0][0, 0]), 1)] if request.states else "text" for request in requests]

    monkeypatch.setattr(states, "encode_clips", encode_clips)
    monkeypatch.setattr(answering, "generate_answers", generate_answers)
    return seen


def record(identity, audio, answer, task="sound_name", **extra):
    turns = [{"role": "user", "content": "What is it?"}]
    if answer:
        turns.append({"role": "assistant", "content": answer})
    return Record(id=identity, audio=audio, turns=turns, task=task, **extra)


def three(**extra):
    return [record(name, (f"{name}.wav",), f"A {name}.", **extra) for name in ("dog", "cat", "cow")]


def evaluate(records, **extra):
    options = {"progress": False, **extra}
    return evaluate_model(MODEL, FakeProcessor(), records, FakeClips(), GenerationSection(), **options)


def test_figures_of_a_model_that_hears(world):
    pytest.importorskip("sklearn")
    result = evaluate(three(), train_records=three())
    figures = result.metrics["tasks"]["sound_name"]
    # Right on every clip; on silence it says "dog", right once; another clip is named instead, never right.
    assert figures["n"] == 3
    assert figures["accuracy"] == 1.0
    assert figures["silent"] == pytest.approx(1 / 3)
    assert figures["swapped"] == 0.0
    assert figures["majority"] == pytest.approx(1 / 3)
    assert figures["chance"] == pytest.approx(1 / 3)
    assert figures["probe"] == 1.0
    assert list(figures)[:7] == ["n", "accuracy", "silent", "swapped", "majority", "chance", "probe"]
    assert set(result.metrics["wall_seconds"]) == {"encode", "answer", "silent", "swapped", "probe"}


def test_predictions_say_what_was_heard(world):
    rows = evaluate(three()).predictions
    assert [row["reply"] for row in rows] == ["dog", "cat", "cow"]
    assert [row["correct"] for row in rows] == [True] * 3
    assert [row["silent"] for row in rows] == ["dog"] * 3
    assert all(row["swapped"] == row["swapped_with"] != row["id"] for row in rows)
    assert rows[0]["question"] == "What is it?"
    assert rows[0]["truth"] == "A dog."


def test_each_clip_and_each_length_of_silence_is_encoded_once(world):
    evaluate(three() + three(task="again"))
    encoded = sorted((length, round(value, 1)) for length, value in world["encoded"])
    assert encoded == [(100, 0.0), (100, 0.1), (200, 0.0), (200, 0.2), (300, 0.0), (300, 0.3)]


def test_yardsticks_that_are_not_asked_for_cost_nothing(world):
    result = evaluate(three(), yardsticks=("majority",))
    assert world["requests"] == 3
    figures = result.metrics["tasks"]["sound_name"]
    assert (figures["silent"], figures["swapped"], figures["chance"], figures["probe"]) == (None, None, None, None)
    assert "silent" not in result.predictions[0]


def test_a_sample_is_asked_again_deaf(world):
    result = evaluate(three(), max_deaf_records_per_task=2, yardsticks=("silent", "swapped"))
    assert world["requests"] == 3 + 2 + 2
    figures = result.metrics["tasks"]["sound_name"]
    assert (figures["n"], figures["silent_n"], figures["swapped_n"]) == (3, 2, 2)
    assert [row["silent"] is None for row in result.predictions].count(True) == 1


def test_unknown_yardstick_is_refused(world):
    with pytest.raises(ValueError, match=r"unknown yardsticks \['louder'\]. Accepted: silent, swapped"):
        evaluate(three(), yardsticks=("louder",))


def test_broken_clips_and_records_without_answer_are_skipped_and_listed(world):
    bad = [record("gone", ("gone.wav",), "A cat."), record("open", ("dog.wav",), None)]
    metrics = evaluate(three() + bad).metrics
    assert metrics["num_records"] == 3
    assert metrics["skipped"] == [
        {"id": "gone", "reason": "gone.wav: no such file"},
        {"id": "open", "reason": "has no answer to compare with"},
    ]


def test_records_without_audio_have_neither_silence_nor_swap(world):
    metrics = evaluate([record("t", (), "text", task="text")]).metrics
    assert metrics["tasks"]["text"]["accuracy"] == 1.0
    assert metrics["tasks"]["text"]["silent"] is None
    assert metrics["tasks"]["text"]["swapped"] is None


def test_budgets_leave_room_for_answers_like_those_of_training(world):
    long = record("l", ("dog.wav",), " ".join(["word"] * 30), task="b")
    spoken = [record("c", ("dog.wav",), "hello", task="c", answer_type="transcript")]
    records = [*three(task="a"), record("b", ("dog.wav",), "dog", task="b"), *spoken]
    assert token_budgets(records, [long], FakeProcessor()) == {"a": 12, "b": 32, "c": 40}
    bank = ClipStates(None, FakeProcessor(), FakeClips())
    answer = Answering(
        None, FakeProcessor(), bank, GenerationSection(max_new_tokens=20), 4, {"a": 12, "b": 32, "c": 40}
    )
    answer(records, "reply", [None] * len(records), lambda finished: None, range(len(records)))
    assert world["budgets"] == [12, 20, 20]


def test_progress_reaches_the_total(world):
    bank, finished = ClipStates(None, FakeProcessor(), FakeClips()), []
    answer = Answering(None, FakeProcessor(), bank, GenerationSection(), 4, {"sound_name": 12})
    replies = answer(three(), "swapped", [1, None, 0], finished.append, range(3))
    assert replies == ["cat", None, "dog"]
    assert sum(finished) == 3


def test_states_come_from_the_cache_and_go_to_it(world):
    class Cache(dict):
        def put(self, key, value):
            self[key] = value.half()

    cache = Cache()
    first = ClipStates(None, FakeProcessor(), FakeClips(), cache=cache).clip_states(["dog.wav", "cat.wav"])
    again = ClipStates(None, FakeProcessor(), FakeClips(), cache=cache).clip_states(["dog.wav", "cat.wav"])
    assert len(world["encoded"]) == len(cache) == 2
    assert all(torch.allclose(a, b, atol=1e-3) and b.dtype == torch.float32 for a, b in zip(first, again, strict=True))


def test_memory_is_bounded(world):
    bank = ClipStates(None, FakeProcessor(), FakeClips(), bytes_kept=500)
    bank.clip_states(list(SOUNDS))
    assert len(bank._kept) == 1
    assert bank.clip("dog.wav").shape == (10, 4)
    assert len(world["encoded"]) == 4


def test_a_clip_too_short_to_be_heard_is_broken(world, monkeypatch):
    monkeypatch.setitem(SOUNDS, "tick.wav", 0.0)
    bank = ClipStates(None, FakeProcessor(), FakeClips())
    assert bank.clip("tick.wav") is None
    assert "too short to be heard" in bank.broken["tick.wav"]


def test_wilson_interval():
    # 8 of 10 with z = 1.96: (0.8 + 0.19208 -+ 1.96 sqrt(0.016 + 0.009604)) / 1.38416.
    low, high = wilson_interval(0.8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert wilson_interval(1.0, 5)[1] == 1.0
