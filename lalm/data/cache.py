"""Frozen encoder states on disk: a clip is encoded once, then read from memory-mapped shards.

    <folder>/<hash of the fingerprint>/fingerprint.json
                                      /<writer>-0000.shard, -0001.shard, ...

A shard is a sequence of entries, each a header of 64 bytes (magic, key, steps, sizes, checksums) and a payload that
is aligned to 64 bytes. Entries are only appended and describe themselves, so the index is read from the headers:
after a kill or damage the good entries remain and the others are absent, to be encoded again. Any number of readers
and writers may run at once; every writer has shards of its own.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lalm.errors import DataError

SHARD_BYTES = 256 * 2**20
ALIGNMENT = 64
MAGIC = b"LALMST01"
_HEADER = struct.Struct("<8s32sIQI")
"""Magic, key (SHA-256), steps, payload bytes, CRC-32 of the payload; followed by the CRC-32 of the header."""
_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int32": torch.int32,
}

CacheDType = Literal["float32", "float16", "bfloat16", "int8", "int32"]


@dataclass
class CacheStats:
    """What is stored, and what this process asked for."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    damaged: int = 0


class StateCache:
    """States [T, E] of clips by the hash of their audio.

    Args:
        folder: root of all caches; this one lives in a subfolder named after its fingerprint.
        fingerprint: everything that the states depend on (encoder fingerprints, chunking, library versions, device
            class). Another fingerprint is another subfolder: stale states cannot be read.
        width: E.
        dtype: how states are stored. `int8` keeps one scale for each channel of a clip, and is read as float32; `int32`
            is for units, which are whole numbers.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fingerprint: dict[str, Any],
        width: int,
        dtype: CacheDType = "float16",
        shard_bytes: int = SHARD_BYTES,
    ):
        if dtype not in _DTYPES:
            raise ValueError(f"unknown cache dtype '{dtype}'. Accepted: {', '.join(_DTYPES)}.")
        self.fingerprint = {**fingerprint, "width": width, "dtype": dtype}
        text = json.dumps(self.fingerprint, sort_keys=True, indent=1)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = Path(folder) / self.key
        self.width, self.dtype, self.shard_bytes = width, dtype, shard_bytes
        self.hits = self.misses = self.damaged = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_once(self.folder / "fingerprint.json", text)
        self._reset()
        self.refresh()

    def get(self, audio_hash: str) -> torch.Tensor | None:
        """States [T, E] as a view of the mapped file, or None if they are absent or damaged. Do not write to it."""
        key = bytes.fromhex(audio_hash)
        if key not in self._places:
            self.refresh()
        while places := self._places.get(key):
            place = places[-1]
            states = self._read(place)
            if states is not None:
                self.hits += 1
                return states
            self.damaged += 1
            places.pop()
        self._places.pop(key, None)
        self.misses += 1
        return None

    def num_steps(self, audio_hash: str) -> int | None:
        """Steps `T` of a clip, from its header alone; None if it is absent."""
        key = bytes.fromhex(audio_hash)
        if key not in self._places:
            self.refresh()
        places = self._places.get(key)
        if not places:
            return None
        name, start, end = places[-1]
        return _HEADER.unpack_from(self._map(name, end), start)[2]

    def put(self, audio_hash: str, states: torch.Tensor) -> None:
        """Appends the states [T, E] of a clip. They can be read, here and elsewhere, when this returns.

        Raises:
            DataError: if the stored dtype cannot hold the values (they become infinite or are not numbers).
            ValueError: if the width is another than the cache's.
        """
        if states.ndim != 2 or states.shape[1] != self.width:
            raise ValueError(f"states of shape {tuple(states.shape)} do not fit a cache of width {self.width}")
        payload = self._encode(states.detach().to("cpu"))
        header = _HEADER.pack(MAGIC, bytes.fromhex(audio_hash), len(states), len(payload), zlib.crc32(payload))
        header += struct.pack("<I", zlib.crc32(header))
        entry = header.ljust(ALIGNMENT, b"\0") + payload
        entry += b"\0" * (-len(entry) % ALIGNMENT)
        out = self._writer(len(entry))
        written = 0
        while written < len(entry):
            written += out.write(memoryview(entry)[written:])
        self.refresh()

    def __contains__(self, audio_hash: str) -> bool:
        return bytes.fromhex(audio_hash) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def missing(self, audio_hashes: Iterable[str]) -> list[str]:
        """Those of `audio_hashes` that are not stored, each once, in order."""
        self.refresh()
        return [item for item in dict.fromkeys(audio_hashes) if item not in self]

    def stats(self) -> CacheStats:
        """Number and bytes of what is stored; hits and misses of this process."""
        size = sum(path.stat().st_size for path in self.folder.glob("*.shard"))
        return CacheStats(len(self), size, self.hits, self.misses, self.damaged)

    def refresh(self) -> None:
        """Learns of entries that this or another process has appended since."""
        for path in sorted(self.folder.glob("*.shard")):
            size = path.stat().st_size
            if size > self._scanned.get(path.name, 0) and size != self._seen_size.get(path.name):
                self._scan(path, size)
                self._seen_size[path.name] = size

    def close(self) -> None:
        """Makes sure that what was written is on the disk, and lets go of the files."""
        if self._out is not None and self._out_pid == os.getpid():
            os.fsync(self._out.fileno())
            self._out.close()
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_places", "_scanned", "_seen_size", "_maps", "_verified", "_out", "_out_pid", "_out_number"):
            state.pop(name)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._places: dict[bytes, list[tuple[str, int, int]]] = {}
        self._scanned: dict[str, int] = {}
        self._seen_size: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self._verified: set[tuple[str, int, int]] = set()
        self._out: Any = None
        self._out_pid = self._out_number = 0

    def _scan(self, path: Path, size: int) -> None:
        """Walks the headers from where the last walk ended. At damage it goes on at the next good header, if any."""
        mapped = self._map(path.name, size)
        start = self._scanned.get(path.name, 0)
        while start + ALIGNMENT <= size:
            found = self._header(mapped, start)
            if found is None:
                following = self._next_header(mapped, start + ALIGNMENT, size)
                if following is None:
                    break  # Half-written, perhaps still being written: looked at again when the file has grown.
                start = following
                continue
            key, end = found
            if end > size:
                following = self._next_header(mapped, start + ALIGNMENT, size)
                if following is None:
                    break
                start = following
                continue
            self._places.setdefault(key, []).append((path.name, start, end))
            start = end
        self._scanned[path.name] = start

    def _header(self, mapped: mmap.mmap, start: int) -> tuple[bytes, int] | None:
        """Key, and end of the entry, of a header that is whole."""
        raw = mapped[start : start + ALIGNMENT]
        if raw[:8] != MAGIC or struct.unpack_from("<I", raw, _HEADER.size)[0] != zlib.crc32(raw[: _HEADER.size]):
            return None
        _, key, steps, num_bytes, _ = _HEADER.unpack_from(raw)
        if num_bytes != self.payload_bytes(steps):
            return None
        return key, start + ALIGNMENT + num_bytes + (-num_bytes % ALIGNMENT)

    def _next_header(self, mapped: mmap.mmap, start: int, size: int) -> int | None:
        while (start := mapped.find(MAGIC, start, size)) >= 0:
            if start % ALIGNMENT == 0 and self._header(mapped, start) is not None:
                return start
            start += 1
        return None

    def _read(self, place: tuple[str, int, int]) -> torch.Tensor | None:
        name, start, end = place
        try:
            mapped = self._map(name, end)
        except (OSError, ValueError):
            return None  # The shard was removed or cut short by another process.
        if self._header(mapped, start) is None:
            return None
        _, _, steps, num_bytes, checksum = _HEADER.unpack_from(mapped, start)
        begin = start + ALIGNMENT
        if place not in self._verified:
            if zlib.crc32(memoryview(mapped)[begin : begin + num_bytes]) != checksum:
                return None
            self._verified.add(place)
        return self._decode(mapped, begin, steps)

    def _map(self, name: str, end: int) -> mmap.mmap:
        """The shard, mapped at least up to `end`. Private and writable in memory, so that torch takes it as it is."""
        mapped = self._maps.get(name)
        if mapped is None or len(mapped) < end:
            with (self.folder / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                mapped = self._maps[name] = mmap.mmap(file.fileno(), max(size, end), access=mmap.ACCESS_COPY)
        return mapped

    def _writer(self, num_bytes: int) -> Any:
        """This process's open shard, with room for an entry."""
        if self._out_pid != os.getpid():  # A forked process must not append to its parent's shard.
            self._out, self._out_pid, self._out_number = None, os.getpid(), 0
            self._out_name = f"{self._out_pid}-{uuid.uuid4().hex[:8]}"
        if self._out is not None and self._out.tell() + num_bytes > self.shard_bytes and self._out.tell():
            os.fsync(self._out.fileno())
            self._out.close()
            self._out = None
        if self._out is None:
            name = f"{self._out_name}-{self._out_number:04d}.shard"
            self._out = (self.folder / name).open("xb", buffering=0)
            self._out_number += 1
        return self._out

    def payload_bytes(self, num_steps: int) -> int:
        """Bytes that states of `num_steps` take, without their header."""
        scales = self.width * 4 if self.dtype == "int8" else 0
        return scales + num_steps * self.width * _DTYPES[self.dtype].itemsize

    def _encode(self, states: torch.Tensor) -> bytes:
        if self.dtype == "int8":
            wide = states.float()
            peaks = wide.abs().amax(dim=0) if len(wide) else torch.zeros(self.width)
            scales = torch.where(peaks > 0, peaks / 127, torch.ones_like(peaks))
            _check_finite(wide, self.dtype)
            return scales.numpy().tobytes() + (wide / scales).round().to(torch.int8).numpy().tobytes()
        stored = states.to(_DTYPES[self.dtype]).contiguous()
        _check_finite(stored, self.dtype)
        return stored.view(torch.uint8).numpy().tobytes() if len(stored) else b""

    def _decode(self, mapped: mmap.mmap, begin: int, steps: int) -> torch.Tensor:
        if steps == 0:
            return torch.zeros(0, self.width, dtype=torch.float32 if self.dtype == "int8" else _DTYPES[self.dtype])
        count = steps * self.width
        if self.dtype != "int8":
            states = torch.frombuffer(mapped, dtype=_DTYPES[self.dtype], count=count, offset=begin)
            return states.view(steps, self.width)
        scales = torch.frombuffer(mapped, dtype=torch.float32, count=self.width, offset=begin)
        values = torch.frombuffer(mapped, dtype=torch.int8, count=count, offset=begin + 4 * self.width)
        return values.view(steps, self.width).float() * scales


def list_caches(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every cache below `folder`: its key, bytes, and fingerprint."""
    found = []
    for path in sorted(Path(folder).glob("*/fingerprint.json")):
        size = sum(shard.stat().st_size for shard in path.parent.glob("*.shard"))
        found.append({"key": path.parent.name, "bytes": size, "fingerprint": json.loads(path.read_text())})
    return found


def prune_caches(folder: str | os.PathLike[str], *, keep: Iterable[str] = ()) -> int:
    """Removes every cache below `folder` whose key is not in `keep`; returns the bytes freed."""
    kept, freed = set(keep), 0
    for found in list_caches(folder):
        if found["key"] not in kept:
            shutil.rmtree(Path(folder) / found["key"])
            freed += found["bytes"]
    return freed


def _check_finite(values: torch.Tensor, dtype: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            f"encoder states are not finite in {dtype}. Set data.cache_dtype to bfloat16 or float32; if "
            "that does not help, the encoder's weights or the clip are damaged."
        )


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text)
    os.replace(temporary, path)
