"""Groups found in rows, and the buckets made of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalm.model.attention_mask import mask_from_segments
from lalm.model.packed_rows import BUCKET_RATIO, Group, PackedRows


def test_groups_are_prefixes_and_branches():
    groups = torch.tensor([[0, 0, 0, 0, 2, 2, -1], [5, 5, 5, 5, 5, -1, -1]])
    branches = torch.tensor([[0, 0, 1, 3, 0, 0, -1], [2, 2, 1, 1, 1, -1, -1]])
    found = PackedRows.of(groups, branches, None).groups
    assert found == (Group(0, 0, 2, ((2, 3), (3, 4))), Group(0, 4, 6, ()), Group(1, 0, 0, ((0, 2), (2, 5))))
    assert [len(group) for group in found] == [4, 2, 5]


@pytest.mark.parametrize(("groups", "branches", "message"), [
    ([0, 1, 0], [0, 0, 0], "row 0: the places of group 0 do not follow one another"),
    ([4, 4, 4], [1, 2, 1], "row 0: group 4 has a branch in two pieces"),
    ([4, 4, 4], [0, 1, 0], "row 0: group 4 has a branch in two pieces, or a prefix behind a branch"),
])  # fmt: skip
def test_scattered_places_are_refused(groups, branches, message):
    with pytest.raises(ValueError, match=message):
        PackedRows.of(torch.tensor([groups]), torch.tensor([branches]), None)


sizes = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_buckets_hold_every_place_once_and_the_mask_of_each_group(groups):
    group_ids = torch.tensor([[number for number, group in enumerate(groups) for _ in range(sum(group))]])
    branches = [branch for group in groups for branch, size in enumerate(group) for _ in range(size)]
    rows = PackedRows.of(group_ids, torch.tensor([branches]), None)
    allowed = mask_from_segments(group_ids, torch.tensor([branches]), torch.float32)[0, 0] == 0
    places = []
    for bucket in rows.buckets():
        lengths = bucket.is_real.sum(1)
        assert lengths.max() <= BUCKET_RATIO * lengths.min()
        for index, is_real, mask in zip(bucket.index, bucket.is_real, bucket.mask, strict=True):
            own = index[is_real]
            places += own.tolist()
            assert torch.equal(mask[0][is_real][:, is_real], allowed[own][:, own])
            assert not mask[0][is_real][:, ~is_real].any()
            assert mask.any(-1).all()
    assert sorted(places) == list(range(group_ids.shape[1]))


def test_a_window_as_wide_as_the_longest_conversation_hides_nothing():
    positions = torch.tensor([[0, 1, 2, 3, 2, 3, 4]])
    rows = PackedRows.of(torch.zeros(1, 7, dtype=torch.long), torch.tensor([[0, 0, 1, 1, 2, 2, 2]]), positions)
    assert rows.reach == 5
    assert rows.buckets(5) is rows.buckets()
    (bucket,) = rows.buckets(2)
    assert bucket.mask[0, 0, 6].tolist() == [False, False, False, False, False, True, True]
    assert bucket.mask[0, 0, 4].tolist() == [False, True, False, False, True, False, False]
    assert rows.buckets(2) is rows.buckets(2)
