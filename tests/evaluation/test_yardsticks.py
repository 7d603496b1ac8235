"""Constant answers, swaps and probes on a few records."""

from collections import Counter

import numpy as np
import pytest

from lalm.data.records import Record
from lalm.evaluation.yardsticks import (
    chance,
    clip_labels,
    majority,
    majority_answer,
    pool_states,
    probe,
    probe_labels,
    swap_partners,
)


def record(number, answer, task="spoken_language", audio=None, **extra):
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": answer}]
    clips = (f"clip{number}.wav",) if audio is None else audio
    return Record(id=f"r{number}", audio=clips, turns=turns, task=task, **extra)


def records(answers, **extra):
    return [record(number, answer, **extra) for number, answer in enumerate(answers)]


def test_majority_comes_from_training_records():
    train, test = records(["Italian", "italian.", "Russian"]), records(["Russian", "Russian", "Italian", "French"])
    assert majority_answer(train) == "Italian"
    assert majority(test, train) == 0.25
    assert majority(test, []) == 0.5


def test_majority_of_transcripts_is_a_wer():
    pytest.importorskip("jiwer")
    train = records(["yes", "yes", "no thanks"], answer_type="transcript")
    test = records(["yes", "no thanks"], answer_type="transcript")
    # "yes" for "no thanks" is 1 substitution and 1 deletion: 2 errors of 3 words.
    assert majority(test, train) == pytest.approx(2 / 3)


def test_chance():
    assert chance(records(["a1", "b1", "b1"]), records(["c1", "d1"])) == 0.25
    assert chance(records(["a1"], choices=("a1", "b1"))) == 0.5
    mixed = [*records(["a1"], choices=("a1", "b1")), *records(["a1"], choices=("a1", "b1", "c1", "d1"))]
    assert chance(mixed) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert chance(records(["so it is"], answer_type="transcript")) is None
    assert chance(records(["same", "Same."])) is None


@pytest.mark.parametrize("answers", ["aabbcc", "ab", "aaabbb", "abcdefgh"])
def test_swaps_are_a_derangement_where_the_answers_allow(answers):
    swapped = records([f"{letter}1" for letter in answers])
    partners = swap_partners(swapped, seed=3)
    assert sorted(partners) == list(range(len(answers)))
    assert all(answers[i] != answers[partner] for i, partner in enumerate(partners))
    assert partners == swap_partners(swapped, seed=3)


def test_swaps_reuse_clips_where_one_answer_holds_the_half():
    partners = swap_partners(records(["a1"] * 5 + ["b1"]), seed=0)
    assert partners[:5] == [5] * 5
    assert partners[5] in range(5)


def test_no_swap_without_another_answer_or_with_other_numbers_of_clips():
    assert swap_partners(records(["a1", "a1"]), seed=0) == [None, None]
    assert swap_partners([record(0, "a1"), record(1, "b1", audio=("x.wav", "y.wav"))], seed=0) == [None, None]
    assert swap_partners(records(["a1", "b1"], audio=()), seed=0) == [None, None]
    assert swap_partners(records(["a1", "b1"], audio=("same.wav",)), seed=0) == [None, None]


def test_different_seeds_swap_differently():
    many = records([f"{i % 4}" for i in range(40)])
    assert swap_partners(many, seed=0) != swap_partners(many, seed=1)


def test_pool_states():
    states = np.array([[1.0, 2.0], [3.0, 2.0]])
    assert pool_states(states).tolist() == [2.0, 2.0, 1.0, 0.0]


def test_units_are_pooled_to_the_share_of_each():
    assert pool_states(np.array([[2.0], [0.0], [2.0], [3.0]]), num_units=5).tolist() == [0.25, 0.0, 0.5, 0.25, 0.0]


def test_clip_labels_drop_clips_with_two_answers_and_abstentions():
    clips = [
        record(0, "A dog.", audio=("x",)),
        record(1, "dog", audio=("x",)),
        record(2, "cat", audio=("y",)),
        record(3, "cow", audio=("y",)),
        record(4, "I cannot tell from this clip.", audio=("z",)),
        record(5, "cat", audio=("u", "v")),
    ]
    assert clip_labels(clips) == {"x": "dog"}


def test_probe_learns_what_is_linear_and_counts_unseen_classes_as_wrong():
    pytest.importorskip("sklearn")
    draw = np.random.default_rng(0)
    train = records(["French", "Russian"] * 20)
    pooled = {f"clip{i}.wav": draw.normal(size=6) + (3 if i % 2 else -3) for i in range(40)}
    test = [record(100, "French"), record(101, "Russian"), record(102, "Klingon"), record(103, "French")]
    pooled |= {"clip100.wav": np.full(6, -3.0), "clip101.wav": np.full(6, 3.0), "clip102.wav": np.full(6, 3.0)}
    # clip103 cannot be read: wrong. Two of four.
    assert probe(test, train, pooled) == {"accuracy": 0.5, "train_clips": 40, "classes": 2}


def test_probe_is_none_where_a_clip_does_not_settle_the_answer():
    assert probe(records(["a1"], task="scene_count"), records(["a1", "b1"], task="scene_count"), {}) is None
    assert probe(records(["a1"]), records(["a1"]), {"clip0.wav": np.zeros(2)}) is None
    assert probe([], [], {}) is None


def test_probe_learns_from_a_seeded_sample_of_many_clips(monkeypatch):
    monkeypatch.setattr("lalm.evaluation.yardsticks.MAX_PROBE_CLIPS", 10)
    many = records([f"{i % 3}" for i in range(50)])
    assert probe_labels(many, seed=0) == probe_labels(many, seed=0)
    assert len(probe_labels(many, seed=0)) == 10
    assert Counter(probe_labels(many, seed=0)) != Counter(probe_labels(many, seed=1))
