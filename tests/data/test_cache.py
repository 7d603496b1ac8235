"""The state cache: what comes out is what went in, or nothing; never something else."""

import hashlib
import multiprocessing
import pickle
import random

import pytest
import torch

from lalm.data.cache import ALIGNMENT, StateCache, list_caches, prune_caches
from lalm.errors import DataError

WIDTH = 5


def name(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def states(number):
    return torch.randn(1 + number % 7, WIDTH, generator=torch.Generator().manual_seed(number))


def open_cache(folder, dtype="float32", **more):
    return StateCache(folder, fingerprint={"encoder": "x"}, width=WIDTH, dtype=dtype, **more)


def filled(folder, count=12, **more):
    cache = open_cache(folder, **more)
    for number in range(count):
        cache.put(name(number), states(number))
    cache.close()
    return cache


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_read_is_what_was_stored_to_the_bit(tmp_path, dtype):
    filled(tmp_path, dtype=dtype)
    cache = open_cache(tmp_path, dtype=dtype)
    assert len(cache) == 12
    for number in range(12):
        read = cache.get(name(number))
        assert read.dtype == getattr(torch, dtype)
        assert torch.equal(read, states(number).to(read.dtype))
    assert cache.get(name(99)) is None
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.damaged, stats.entries) == (12, 1, 0, 12)


def test_reading_does_not_copy(tmp_path):
    filled(tmp_path)
    cache = open_cache(tmp_path)
    assert cache.get(name(3)).data_ptr() == cache.get(name(3)).data_ptr()


def test_int8_is_close_and_scaled_by_channel(tmp_path):
    wide = torch.randn(50, WIDTH) * torch.tensor([0.01, 1, 100, 0, 5])
    cache = open_cache(tmp_path, "int8")
    cache.put(name(0), wide)
    error = (cache.get(name(0)) - wide).abs() / wide.abs().amax(0).clamp(min=1e-9)
    assert float(error.max()) <= 0.5 / 127 + 1e-6


def test_another_fingerprint_width_or_dtype_is_another_cache(tmp_path):
    filled(tmp_path)
    assert len(StateCache(tmp_path, fingerprint={"encoder": "y"}, width=WIDTH, dtype="float32")) == 0
    assert len(StateCache(tmp_path, fingerprint={"encoder": "x"}, width=WIDTH, dtype="float16")) == 0
    assert len(list_caches(tmp_path)) == 3
    assert prune_caches(tmp_path, keep=[open_cache(tmp_path).key]) == 0
    assert len(list_caches(tmp_path)) == 1
    assert len(open_cache(tmp_path)) == 12


def test_shards_are_closed_at_their_size(tmp_path):
    cache = filled(tmp_path, shard_bytes=600)
    assert len(list(cache.folder.glob("*.shard"))) > 2
    assert torch.equal(open_cache(tmp_path).get(name(11)), states(11))


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_shard_keeps_its_whole_entries_and_takes_new_ones(tmp_path, seed):
    cache = filled(tmp_path)
    (shard,) = cache.folder.glob("*.shard")
    content = shard.read_bytes()
    shard.write_bytes(content[: random.Random(seed).randrange(len(content))])
    cache = open_cache(tmp_path)
    kept = [number for number in range(12) if cache.get(name(number)) is not None]
    assert kept == list(range(len(kept)))
    assert len(kept) < 12
    for number in range(12):
        if name(number) not in cache:
            cache.put(name(number), states(number))
    again = open_cache(tmp_path)
    for reader in (cache, again):
        assert all(torch.equal(reader.get(name(number)), states(number)) for number in range(12))


@pytest.mark.parametrize("seed", range(24))
def test_a_flipped_byte_costs_at_most_its_entry(tmp_path, seed):
    cache = filled(tmp_path)
    (shard,) = cache.folder.glob("*.shard")
    content = bytearray(shard.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1 << seed % 8
    shard.write_bytes(content)
    cache = open_cache(tmp_path)
    absent = [number for number in range(12) if cache.get(name(number)) is None]
    assert len(absent) <= 1  # none where the byte was padding
    assert all(torch.equal(cache.get(name(n)), states(n)) for n in range(12) if n not in absent)
    for number in absent:
        cache.put(name(number), states(number))
    assert all(torch.equal(open_cache(tmp_path).get(name(number)), states(number)) for number in range(12))


def test_an_entry_is_found_as_soon_as_another_process_has_written_it(tmp_path):
    reader, writer = open_cache(tmp_path), open_cache(tmp_path)
    assert reader.get(name(1)) is None
    writer.put(name(1), states(1))
    assert torch.equal(reader.get(name(1)), states(1))


def test_a_half_written_entry_is_not_seen_until_it_is_whole(tmp_path):
    cache = filled(tmp_path, count=2)
    (shard,) = cache.folder.glob("*.shard")
    content = shard.read_bytes()
    for cut in range(0, len(content), 16):
        shard.write_bytes(content[:cut])
        reader = open_cache(tmp_path)
        shard.write_bytes(content)
        assert all(torch.equal(reader.get(name(number)), states(number)) for number in range(2)), cut


def _write(folder, numbers):
    filled_cache = open_cache(folder)
    for number in numbers:
        filled_cache.put(name(number), states(number))


@pytest.mark.slow
def test_several_writers_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, range(k, 40, 2))) for k in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    cache = open_cache(tmp_path)
    assert all(torch.equal(cache.get(name(number)), states(number)) for number in range(40))


def test_a_pickled_cache_reads_the_same(tmp_path):
    copy = pickle.loads(pickle.dumps(filled(tmp_path)))
    assert torch.equal(copy.get(name(5)), states(5))


def test_refusals(tmp_path):
    cache = open_cache(tmp_path, "float16")
    with pytest.raises(DataError, match="not finite in float16"):
        cache.put(name(0), torch.full((2, WIDTH), 1e6))
    with pytest.raises(ValueError, match="width 5"):
        cache.put(name(0), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="Accepted: float32"):
        open_cache(tmp_path, "float64")
    assert ALIGNMENT == 64
