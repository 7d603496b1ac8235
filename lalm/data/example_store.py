"""The examples of a stage on the disk: what planning needs of each stands in columns, the rest is read when drawn.

A row of `examples.bin` is the token ids and labels as they lie in memory, and the rest as JSON; `columns.bin` says
where each row is. Both belong to the process that wrote them. In memory an example takes nothing but mapped pages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lalm.data.packing import prefix_limit, share_hash
from lalm.data.records import Record
from lalm.data.scratch import ScratchFolder
from lalm.data.sequences import ReadSequence
from lalm.errors import DataError

if TYPE_CHECKING:
    from lalm.data.examples import Example

COLUMNS = np.dtype(
    [
        ("start", "<i8"),
        ("bytes", "<i4"),
        ("length", "<i4"),
        ("supervised", "<i4"),
        ("samples", "<i8"),
        ("source", "<i2"),
        ("task", "<i4"),
        ("truncated", "?"),
        ("share_key", "<i8"),
        ("share_limit", "<i4"),
    ]
)
"""Place of a row; positions; positions with loss; samples of all clips; numbers of source and task; see `packing` for
the last two."""
_BUFFERED_ROWS = 4096


class ExampleStore(ReadSequence["Example"]):
    """The examples that `store_examples` wrote, in their order."""

    def __init__(self, folder: ScratchFolder, sources: Sequence[str], tasks: Sequence[str]):
        self._folder, self._sources, self._tasks = folder, list(sources), list(tasks)
        self._open()

    def _open(self) -> None:
        path = self._folder.path / "columns.bin"
        self.columns = np.asarray(np.memmap(path, COLUMNS, mode="r")) if path.stat().st_size else np.zeros(0, COLUMNS)
        self._rows = (self._folder.path / "examples.bin").open("rb", buffering=0)

    def __len__(self) -> int:
        return len(self.columns)

    def read(self, index: int) -> Example:
        from lalm.data.examples import Example

        start, num_bytes, length = (int(self.columns[name][index]) for name in ("start", "bytes", "length"))
        row = os.pread(self._rows.fileno(), num_bytes, start)
        if len(row) != num_bytes:
            raise DataError(f"{self._folder.path}: examples of this run were removed. Start the command again.")
        about = json.loads(row[8 * length :])
        return Example(
            record=Record.of_own_json(about["record"]),
            source=self._sources[self.columns["source"][index]],
            input_ids=np.frombuffer(row, np.int32, length),
            labels=np.frombuffer(row, np.int32, length, 4 * length),
            audio_spans=tuple((start, end) for start, end in about["audio_spans"]),
            clips=tuple(about["clips"]),
            audio_hashes=tuple(about["audio_hashes"]),
            truncated=bool(self.columns["truncated"][index]),
            questions=tuple(map(tuple, about["questions"])),
        )

    @property
    def tasks(self) -> list[str]:
        """All tasks, in order of name."""
        return sorted(self._tasks)

    @property
    def sources(self) -> list[str]:
        """All sources that have an example, in order of name."""
        return sorted(self._sources)

    @property
    def num_truncated(self) -> int:
        """Examples whose answer was shortened."""
        return int(self.columns["truncated"].sum())

    def members(self) -> dict[str, np.ndarray]:
        """Numbers of the examples of each source."""
        numbers = self.columns["source"]
        return {name: np.flatnonzero(numbers == code).astype(np.int32) for code, name in enumerate(self._sources)}

    def __getstate__(self) -> dict[str, Any]:
        """For a worker of a data loader, which reads the files while this process lives."""
        return {"_path": self._folder.path, "_sources": self._sources, "_tasks": self._tasks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._folder = _Borrowed(state["_path"])
        self._sources, self._tasks = state["_sources"], state["_tasks"]
        self._open()


class _Borrowed:
    """A folder that another process will remove."""

    def __init__(self, path: Any):
        self.path = path


def store_examples(examples: Iterable[tuple[Example, int]]) -> ExampleStore:
    """Writes examples, each with the samples of its clips, as they come.

    Raises:
        DataError: if the disk has no room for them.
    """
    folder = ScratchFolder()
    sources: dict[str, int] = {}
    tasks: dict[str, int] = {}
    columns, filled, place = np.zeros(_BUFFERED_ROWS, COLUMNS), 0, 0
    try:
        with (folder.path / "examples.bin").open("wb") as rows, (folder.path / "columns.bin").open("wb") as index:
            for example, num_samples in examples:
                row = _row(example)
                rows.write(row)
                columns[filled] = (
                    place,
                    len(row),
                    len(example),
                    example.num_supervised,
                    num_samples,
                    sources.setdefault(example.source, len(sources)),
                    tasks.setdefault(example.record.task, len(tasks)),
                    example.truncated,
                    share_hash(example),
                    prefix_limit(example),
                )
                place += len(row)
                filled += 1
                if filled == len(columns):
                    index.write(columns.tobytes())
                    filled = 0
            index.write(columns[:filled].tobytes())
    except OSError as error:
        raise DataError(
            f"{folder.path}: the examples of the stage cannot be written ({error.strerror}). Make room, or set "
            "LALM_CACHE to another disk."
        ) from None
    return ExampleStore(folder, list(sources), list(tasks))


def _row(example: Example) -> bytes:
    about = {
        "record": example.record.to_json(),
        "audio_spans": example.audio_spans,
        "clips": example.clips,
        "audio_hashes": example.audio_hashes,
        "questions": example.questions,
    }
    ids, labels = (np.ascontiguousarray(part, np.int32).tobytes() for part in (example.input_ids, example.labels))
    return ids + labels + json.dumps(about, ensure_ascii=False).encode()
