"""Reads CTranslate2's `model.bin` (version 6), the form in which faster-whisper models come. Imports no torch.

Layout, little-endian: uint32 version; string specification; uint32 revision; uint32 count; then for each variable its
name, uint8 rank, uint32 sizes, uint8 type, uint32 bytes, data. A string is a uint16 length (with its NUL) and bytes.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

import numpy as np

from lalm.errors import ModelError

VERSION = 6
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
HEAD_WIDTH = 64
"""Of every published Whisper; for files that do not say how many heads there are."""


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Every variable of a `model.bin`, as views into the mapped file.

    Raises:
        ModelError: if the file is truncated or of another version.
    """
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: is empty. Fetch it again.")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = _Reader(data, path)
    if (version := reader.number("I")) != VERSION:
        raise ModelError(f"{path}: CTranslate2 version {version}; version {VERSION} is read.")
    reader.string()
    reader.number("I")
    variables = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        code, size = reader.number("B"), reader.number("I")
        if code not in DTYPES:
            raise ModelError(f"{path}: variable {name} is of type {code}; read are float32, float16 and int8.")
        if size != math.prod(shape) * np.dtype(DTYPES[code]).itemsize:
            raise ModelError(
                f"{path}: variable {name} has {size} bytes, which is not its shape {shape}. Fetch it again."
            )
        variables[name] = reader.array(DTYPES[code], size).reshape(shape)
    return variables


class _Reader:
    def __init__(self, data: mmap.mmap, path: Path):
        self.data, self.path, self.place = data, path, 0

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return self._take(self.number("H"))[:-1].decode()

    def array(self, dtype: type, num_bytes: int) -> np.ndarray:
        start = self.place
        self._take(num_bytes, read=False)
        return np.frombuffer(self.data, dtype, num_bytes // np.dtype(dtype).itemsize, start)

    def _take(self, num_bytes: int, *, read: bool = True) -> bytes:
        start, self.place = self.place, self.place + num_bytes
        if self.place > len(self.data):
            raise ModelError(f"{self.path}: is cut off. Fetch it again.")
        return self.data[start : self.place] if read else b""


def whisper_sizes(path: Path) -> dict[str, int]:
    """Sizes of a Whisper encoder under transformers' names, from the variables' shapes."""
    variables = read_variables(path)
    if "encoder/conv1/weight" not in variables:
        raise ModelError(f"{path}: holds no Whisper model.")
    width, mels, _ = variables["encoder/conv1/weight"].shape
    layers = {name.split("/")[1] for name in variables if name.startswith("encoder/layer_") and "/ffn/" in name}
    return {
        "d_model": width,
        "num_mel_bins": mels,
        "encoder_layers": len(layers),
        "encoder_attention_heads": int(variables.get("encoder/num_heads", width // HEAD_WIDTH)),
        "encoder_ffn_dim": variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        "max_source_positions": variables["encoder/position_encodings/encodings"].shape[0],
    }
