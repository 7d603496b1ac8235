"""Jobs on a Ray cluster of two nodes: both work, and the set is the one that processes build."""

import os
import sys
import time
from pathlib import Path

import pytest
from invented_corpora import invented_clips, same_files, tiny_recipe

from data_builders.jobs import Processes
from data_builders.pipeline import build_from_clips

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runner():
    ray = pytest.importorskip("ray", reason="ray is not installed (the extra 'ray')")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    from data_builders.ray_runner import RayData

    # The workers of the nodes import the jobs by name.
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    cluster = cluster_utils.Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.add_node(num_cpus=1)
        yield RayData(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
        patch.undo()


def test_jobs_run_on_both_nodes(runner):
    found = list(runner.run(where, list(range(12))))
    assert sorted(number for number, _ in found) == list(range(12))
    assert len({node for _, node in found}) == 2


def test_a_job_that_fails_ends_the_run(runner):
    with pytest.raises(Exception, match="job 2 is broken"):
        list(runner.run(break_at_two, [1, 2]))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_set_is_that_of_processes(runner, tmp_path, form):
    changes = {"questions": {"block_clips": 40}, "output": {"form": form, "rows_per_shard": 60}}
    for name, chosen in (("ray", runner), ("processes", Processes(1))):
        build_from_clips(
            tmp_path / name, invented_clips(), tiny_recipe(**changes), runner=chosen, report=lambda line: None
        )
    assert same_files(tmp_path / "ray", tmp_path / "processes")


def where(number):
    import ray

    time.sleep(0.2)
    return number, ray.get_runtime_context().get_node_id()


def break_at_two(number):
    if number == 2:
        raise ValueError("job 2 is broken")
    return number
