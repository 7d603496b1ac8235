"""Folders of a process's own: made side by side, removed with their owner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lalm.data.scratch import ScratchFolder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LALM_CACHE", str(tmp_path))


def test_folders_made_at_the_same_time_are_all_there():
    """None is taken for the folder of a dead process while it is being made."""
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: ScratchFolder(), range(64)))
    assert len({folder.path for folder in folders}) == 64
    assert all((folder.path / ".lock").is_file() for folder in folders)


def test_a_folder_without_an_owner_is_removed_by_the_next_one():
    left = ScratchFolder()
    root, path = left.path.parent, left.path
    abandoned = root / "abandoned"
    abandoned.mkdir()
    (abandoned / ".lock").touch()
    mine = ScratchFolder()
    assert not abandoned.exists()
    assert path.is_dir()
    del left
    assert not path.exists()
    assert mine.path.is_dir()
