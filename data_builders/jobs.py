"""Numbered jobs whose results are files: so a build is resumable, parallel, and the same from any number of workers.

Job k of a stage writes `<stage>/<k>.jsonl`, which appears under its name when it is whole and closes with its count. A
stage that is started again does the jobs whose files are missing. What runs the jobs is a Runner: processes of this
machine, or a Ray cluster (`ray_runner.py`); a share of them can be left to other machines (`share`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lalm.errors import DataError

Work = Callable[[Any], Iterable[dict[str, Any]]]
"""A job -> JSON rows. Depends on the job alone."""


class Runner(Protocol):
    """Calls a function with every job; results may come in any order."""

    def run(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Share:
    """The jobs that one machine of several does: every `of`-th from `number` on. Share(0, 1) is all of them."""

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise DataError(f"shard: {self.number}/{self.of} is not accepted. The shards of 4 are 0/4, 1/4, 2/4, 3/4.")

    @property
    def is_all(self) -> bool:
        return self.of == 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """`2/8` is the third of eight.

        Raises:
            DataError: for anything else.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdigit() and of.isdigit()):
            raise DataError(f"shard: '{text}' is not accepted. Write 0/4 for the first of four.")
        return cls(int(number), int(of))


class Processes:
    """So many processes of this machine; with one worker, this process itself."""

    def __init__(self, workers: int = 1):
        if workers < 1:
            raise DataError(f"workers: {workers} is not accepted. At least 1.")
        self.workers = workers

    def run(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        if self.workers == 1 or len(jobs) < 2:
            yield from map(function, jobs)
            return
        # A server that was started fresh forks the workers: they inherit no thread, and import the builder once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["data_builders.pipeline"])
        workers = min(self.workers, len(jobs))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_with_parent) as pool:
            yield from pool.map(function, jobs)


def run_stage(
    folder: Path,
    jobs: Sequence[Any],
    work: Work,
    runner: Runner,
    *,
    share: Share = Share(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Does the jobs of a share that are not done yet; returns whether every job of the stage is done now."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [number for number in range(len(jobs)) if number % share.of == share.number]
    missing = [number for number in wanted if not is_whole(part_path(folder, number))]
    progress(len(wanted) - len(missing), len(wanted))
    done = runner.run(partial(do_job, folder=folder, work=work), [(number, jobs[number]) for number in missing])
    for count, _ in enumerate(done, start=len(wanted) - len(missing) + 1):
        progress(count, len(wanted))
    return all(is_whole(part_path(folder, number)) for number in range(len(jobs)))


def do_job(numbered: tuple[int, Any], *, folder: Path, work: Work) -> int:
    """Writes the file of one job; returns its number."""
    number, job = numbered
    path = part_path(folder, number)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as out:
            for row in work(job):
                count += 1
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.write(json.dumps({"end": count}) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return number


def read_part(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a whole part.

    Raises:
        DataError: if it is cut off.
    """
    last: dict[str, Any] | None = None
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if last is not None:
                yield last
            last = json.loads(line)
    if last is None or set(last) != {"end"}:
        raise DataError(f"{path}: is cut off. Remove it and start the build again.")


def is_whole(path: Path) -> bool:
    """Whether a part exists and ends with its count."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 40))
            return file.read().rpartition(b'{"end": ')[2].endswith(b"}\n")
    except OSError:
        return False


def part_path(folder: Path, number: int) -> Path:
    """The file of one job."""
    return folder / f"{number:06d}.jsonl"


def _leave_with_parent() -> None:
    """A worker whose parent was killed ends, instead of waiting for jobs for ever.

    The parent is the process of the pool: the server that forked the worker lives as long as its workers do.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
