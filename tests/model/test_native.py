"""C++ that is compiled when it is needed: it works, or the reason why not is one line."""

from __future__ import annotations

import pytest

from lalm.model.native import library, why_no_library


@pytest.mark.slow
@pytest.mark.usefixtures("torch_compiles")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ('extern "C" int works() { return 1; }', None),
        ('extern "C" int works() { return 0; }', "lacks what some.cpp needs"),
        ("this is no C++", "some.cpp does not compile here"),
    ],
)
def test_a_file_works_or_says_why_not(code, reason, tmp_path):
    source = tmp_path / "some.cpp"
    source.write_text(code, encoding="utf-8")
    found = why_no_library(source)
    assert found is None if reason is None else reason in found
    assert found is None or "\n" not in found
    if reason is None:
        assert library(source).works() == 1
