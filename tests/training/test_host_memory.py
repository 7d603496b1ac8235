"""Freed memory stays with the process: tensors that come back step after step are not filled by the system again."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from lalm.training import host_memory

SCRIPT = """
import resource, sys, torch
from lalm.training.host_memory import keep_host_memory
if sys.argv[1] == "keep":
    assert keep_host_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2**22) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(min(faults() for _ in range(4)))
"""


def count_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_tensors_that_come_back_cost_no_page_faults():
    assert resource.getpagesize() < 2**21
    assert count_faults("keep") * 10 < count_faults("leave")


def test_elsewhere_nothing_changes(monkeypatch):
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert not host_memory.keep_host_memory()
