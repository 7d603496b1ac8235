"""Runs the jobs of a build on a Ray cluster, through Ray Data. The only file that touches ray.

Every job writes its file into the folder of the build, so that folder must be on a disk that all nodes share, and the
recordings must be where the plan found them. The rows are those of any other runner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lalm.errors import MissingPackageError

LOCAL = "local"


class RayData:
    """Jobs as the blocks of a Ray dataset, one block a job."""

    def __init__(self, address: str = LOCAL):
        """`address`: of a running cluster, `auto`, or `local` for one of this machine.

        Raises:
            MissingPackageError: without ray.
        """
        try:
            import ray
        except ImportError:
            raise MissingPackageError("ray", "building on a cluster", "ray") from None
        if not ray.is_initialized():
            ray.init(address=None if address == LOCAL else address, log_to_driver=False, logging_level="error")
        self._ray = ray

    def run(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Results in the order in which they come. A job that raises ends the run with its error."""
        if not jobs:
            return
        held = self._ray.put([*jobs])

        def do(row: dict[str, Any]) -> dict[str, Any]:
            import ray

            return {"result": function(ray.get(held)[row["id"]])}

        data = self._ray.data.range(len(jobs), override_num_blocks=len(jobs)).map(do)
        for row in data.iter_rows():
            yield row["result"]
