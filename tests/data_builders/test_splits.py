"""No group in two splits, a known word behind every closed test, the same split whatever the order of the clips."""

from collections import defaultdict

import pytest
from invented_corpora import invented_clips

from data_builders.splits import assign_splits, leaks


@pytest.fixture(scope="module")
def clips():
    return invented_clips()


def test_the_order_of_clips_changes_nothing(clips):
    assert assign_splits(clips, 3) == assign_splits(clips[::-1], 3)


def test_another_seed_holds_out_others(clips):
    assert assign_splits(clips, 3) != assign_splits(clips, 4)


def test_a_prompt_is_in_one_split_in_all_languages(clips):
    splits = assign_splits(clips, 0)
    by_key = defaultdict(set)
    for clip in clips:
        if clip.kind == "speech" and not clip.facts.get("alone"):
            by_key[clip.facts["key"]].add(splits[clip.group])
    assert all(len(found) == 1 for found in by_key.values())
    assert {split for found in by_key.values() for split in found} == {"train", "validation", "test"}


def test_a_word_held_out_alone_is_known_from_training(clips):
    splits = assign_splits(clips, 0)
    held = [clip for clip in clips if clip.facts.get("alone") and splits[clip.group] == "test"]
    known = {clip.facts["sounds_like"] for clip in clips if clip.facts.get("alone") and splits[clip.group] == "train"}
    assert held
    assert {clip.facts["sounds_like"] for clip in held} <= known


def test_every_label_with_two_groups_is_trained_and_tested(clips):
    splits = assign_splits(clips, 0)
    by_label = defaultdict(set)
    for clip in clips:
        if clip.label:
            by_label[clip.label].add(splits[clip.group])
    assert all({"train", "test"} <= found for found in by_label.values())


def test_a_label_with_one_group_stays_in_training(clips):
    alone = [clip for clip in clips if clip.label != "bell" or clip.group == "s-3-0"]
    assert assign_splits(alone, 0)["s-3-0"] == "train"


def test_leaks_names_a_torn_group():
    assert leaks({"train": ["a", "b"], "test": ["b", "c"], "validation": ["d"]}) == ["b"]
    assert leaks({"train": ["a", "a"], "test": ["c"]}) == []
