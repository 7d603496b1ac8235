"""Examples and a folder of recordings that several tests use."""

from __future__ import annotations

import pytest
from tiny_data import make_example, make_record, write_clip

from lalm.data.records import write_records


@pytest.fixture
def examples():
    """Two clips of equal length with three and two questions, one of another length, and a record of text alone."""
    return [
        make_example("a1", ["a"], "what is it?", "dog", [7]),
        make_example("b1", ["b"], "what is it?", "a cat", [7]),
        make_example("a2", ["a"], "what colour?", "red dog", [7]),
        make_example("c1", ["c"], "who?", "nobody at all", [12]),
        make_example("a3", ["a"], "who?", "x", [7]),
        make_example("b2", ["b"], "why?", "because", [7]),
        make_example("t1", [], "say yes", "yes", []),
        make_example("ab", ["a", "b"], "which is longer?", "the first", [7, 7]),
    ]


@pytest.fixture
def corpus(tmp_path):
    """Folder with 6 clips of 0.3 to 1.3 s and three questions about each, in data.jsonl."""
    folder = tmp_path / "corpus"
    records = []
    for number in range(6):
        write_clip(folder / f"clips/{number}.wav", 0.3 + 0.2 * number, seed=number)
        for question in range(3):
            records.append(
                make_record(
                    f"r{number}-{question}",
                    [f"clips/{number}.wav"],
                    f"question {question}?",
                    f"answer {number}",
                    task="even" if number % 2 == 0 else "odd",
                )
            )
    write_records(folder / "data.jsonl", records)
    return folder
