"""Examples on the disk: read back as they were, known by their columns, gone with their owner."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from tiny_data import make_example

from lalm.data import example_store
from lalm.data.example_store import store_examples
from lalm.data.packing import IGNORED, common_prefix_length, share_hash, share_key, sharing
from lalm.data.scratch import IN_MEMORY_BYTES, ScratchFolder, scratch_array
from lalm.data.sequences import Changed, Joined, Picked
from lalm.errors import DataError


def same(one, other):
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        else:
            assert mine == theirs, field.name
    return True


@pytest.mark.parametrize("buffered", [2, 4096])
def test_examples_come_back_as_they_were(examples, monkeypatch, buffered):
    monkeypatch.setattr(example_store, "_BUFFERED_ROWS", buffered)
    examples[1] = replace(examples[1], truncated=True, questions=((3, 4), (5,)), source="other")
    changed = {"choices": ("x", "yes"), "meta": {"events": [{"label": "dog", "onset": 0.5}]}, "task": "t"}
    examples[6] = replace(examples[6], record=examples[6].record.model_copy(update=changed))
    store = store_examples((example, 10 * number) for number, example in enumerate(examples))
    assert len(store) == len(examples)
    assert all(same(one, other) for one, other in zip(store, examples, strict=True))
    assert store.tasks == ["qa", "t"]
    assert store.sources == ["other", "s"]
    assert {name: numbers.tolist() for name, numbers in store.members().items()} == {
        "s": [0, 2, 3, 4, 5, 6, 7],
        "other": [1],
    }
    columns = store.columns
    assert columns["length"].tolist() == [len(example) for example in examples]
    assert columns["supervised"].tolist() == [int((example.labels != IGNORED).sum()) for example in examples]
    assert columns["samples"].tolist() == [10 * number for number in range(len(examples))]
    assert columns["truncated"].tolist() == [number == 1 for number in range(len(examples))]


def test_sharing_from_columns_is_sharing_from_examples(examples):
    examples += [make_example(f"same{number}", ["a"], "what is it?", "dog", [7]) for number in range(3)]
    store = store_examples((example, 0) for example in examples)
    groups, prefixes = sharing(store, store.columns["share_key"], store.columns["share_limit"])
    keys = [share_key(example) for example in examples]
    first = [next(j for j in range(i + 1) if j == i or (key is not None and keys[j] == key))
             for i, key in enumerate(keys)]  # fmt: skip
    numbers = {place: number for number, place in enumerate(sorted(set(first)))}
    assert groups.tolist() == [numbers[place] for place in first]
    for number, place in enumerate(first):
        members = [example for example, other in zip(examples, first, strict=True) if other == place]
        assert prefixes[number] == (common_prefix_length(members) if len(members) > 1 else 0)
    for mine, plain in zip((groups, prefixes), sharing(examples), strict=True):
        np.testing.assert_array_equal(mine, plain)
    assert share_hash(examples[6]) == 0  # text alone


def test_no_examples_is_an_empty_store():
    store = store_examples(iter(()))
    assert list(store) == store.tasks == store.sources == []
    assert store.members() == {}


def test_a_worker_reads_the_files_of_its_parent(examples):
    store = store_examples((example, 0) for example in examples)
    copy = pickle.loads(pickle.dumps(store))
    assert same(copy[3], examples[3])
    del copy
    assert same(store[3], examples[3])


def test_a_full_disk_is_an_error_that_names_the_folder(examples, monkeypatch):
    def full(example):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(example_store, "_row", full)
    with pytest.raises(DataError, match=r"scratch.*cannot be written \(No space left on device\)"):
        store_examples((example, 0) for example in examples)


def test_files_go_with_their_owner(examples, own_cache):
    store = store_examples((example, 0) for example in examples)
    (folder,) = (path for path in (own_cache / "scratch").iterdir() if path.is_dir())
    del store
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed(own_cache):
    mine = ScratchFolder()
    code = "import os; from lalm.data.scratch import ScratchFolder; f = ScratchFolder(); print(f.path, flush=True); "
    done = subprocess.run(
        [sys.executable, "-c", code + "os.kill(os.getpid(), 9)"], capture_output=True, text=True, check=False
    )
    left = done.stdout.strip()
    assert os.path.isdir(left)
    ScratchFolder()
    assert not os.path.exists(left)
    assert mine.path.is_dir()


def test_a_forked_process_leaves_the_folder_alone():
    mine = ScratchFolder()
    pid = os.fork()
    if pid == 0:
        mine._remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert mine.path.is_dir()


def test_large_arrays_are_on_the_disk():
    small, large = scratch_array(10, np.int32), scratch_array(IN_MEMORY_BYTES, np.int64)
    assert small.base is None
    assert isinstance(large.base, np.memmap)
    assert large.shape == (IN_MEMORY_BYTES,)
    large[-1] = 7
    assert large[-1] == 7


def test_a_disk_without_room_for_an_array_is_named(monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=rf"scratch: no room for {8 * IN_MEMORY_BYTES} bytes"):
        scratch_array(IN_MEMORY_BYTES, np.int64)


def test_sequences_read_only_what_is_asked_for():
    read = []
    doubled = Changed(range(10), lambda item: read.append(item) or 2 * item)
    picked = Picked(doubled, np.array([7, 1, 1]))
    assert (picked[0], picked[-1], picked[1:]) == (14, 2, [2, 2])
    assert read == [7, 1, 1, 1]
    joined = Joined([picked, [], [5]])
    assert list(joined) == [14, 2, 2, 5] == joined[:]
    assert joined[3] == 5
    with pytest.raises(IndexError, match="item 4 of 4"):
        joined[4]
