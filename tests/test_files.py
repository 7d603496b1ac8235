"""A file is replaced whole, or stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lalm.files import replacing, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "deep" / "report.txt"
    write_text(path, "déjà")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text(encoding="utf-8") == "déjà"
    assert [item.name for item in path.parent.iterdir()] == ["report.txt"]


def test_json_is_readable_as_it_stands(tmp_path: Path):
    write_json(tmp_path / "a.json", {"name": "é", "path": Path("x")})
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "é", "path": "x"}
