"""The page: escaped, whole without any other file, with what was measured on it."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lalm.errors import AudioError
from lalm.evaluation.console import metrics_table, percent
from lalm.evaluation.report import count_confusions, loss_curve, pick_examples, read_losses, write_report
from lalm.recipe.schema import Recipe

METRICS = {
    "tasks": {
        "sound_name": {"n": 4, "metric": "accuracy", "accuracy": 0.75, "silent": 0.25, "swapped": 0.0,
                       "majority": 0.25, "chance": 0.125, "probe": 0.5, "interval": (0.3, 0.95), "unparsed": 1},
        "transcription": {"n": 2, "metric": "wer", "wer": 1.25, "silent": 2.5, "swapped": None, "majority": 1.0,
                          "chance": None, "probe": None, "cer": 0.5, "exact": 0.0, "unanswered": 0},
    },
    "num_records": 6,
    "wall_seconds": {"evaluate": 150.0},
    "skipped": [],
}  # fmt: skip


def row(number, truth="dog", reply="dog", task="sound_name", **extra):
    fields = {"id": f"r{number}", "task": task, "audio": [f"{number}.wav"], "question": "What <b>is</b> it?"}
    return {**fields, "truth": truth, "reply": reply, "correct": truth == reply, "details": {}, **extra}


class FakeClips:
    sample_rate_hz = 16_000

    def load(self, path):
        if path == "0.wav":
            raise AudioError("0.wav: gone")
        return np.zeros(1600, np.float32)


@pytest.fixture
def recipe():
    return Recipe.model_validate(
        {
            "name": "tiny",
            "description": "A & B <script>",
            "encoders": [{"name": "whisper", "base": "random"}],
            "projector": {"name": "mlp"},
            "language_model": {"base": "random"},
            "data": {"sources": {"own": {"records": "own.jsonl"}}},
            "stages": [{"name": "align", "steps": 3, "learning_rates": {"projector": 0.001}}],
        }
    )


class Tags(HTMLParser):
    """Names and attributes of every tag."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_needs_nothing_but_itself_and_escapes_text(tmp_path, recipe):
    rows = [row(number) for number in range(5)] + [row(9, "cat", "<script>alert(1)</script>", silent="dog")]
    page = write_report(tmp_path, METRICS, rows, recipe, FakeClips()).read_text(encoding="utf-8")
    tags = Tags(page).found
    assert not [tag for tag, _ in tags if tag in {"script", "link", "iframe", "b"} and _.get("href")]
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "What &lt;b&gt;is&lt;/b&gt; it?" in page
    assert "A &amp; B &lt;script&gt;" in page
    sources = [attributes["src"] for _, attributes in tags if "src" in attributes]
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"data:[^\"]*", "", page))
    # Six examples, of which one has no sound any more.
    assert sum(tag == "article" for tag, _ in tags) == 6
    assert sum(tag == "audio" for tag, _ in tags) == 5


def test_page_shows_the_figures(tmp_path, recipe):
    page = write_report(tmp_path, METRICS, [], recipe, FakeClips()).read_text(encoding="utf-8")
    assert all(figure in page for figure in ("75.0 %", "125.0 %", "250.0 %", "95 %: 30 to 95 %", "cer 50.0 %"))
    assert "2.5 min" in page
    assert "rank 8" in page


def test_confusion_counts_right_replies_as_their_truth():
    rows = [
        row(0),
        row(1, reply="A dog!", correct=True),
        row(2, reply="cat"),
        row(3, "cat", "it is the dog", details={"parsed": "dog"}),
        row(4, "cat", "whatever"),
    ]
    truths, columns, counts = count_confusions(rows)
    assert (truths, columns) == (["cat", "dog"], ["cat", "dog", "other"])
    assert counts == {("dog", "dog"): 2, ("dog", "cat"): 1, ("cat", "dog"): 1, ("cat", "other"): 1}


def test_examples_come_from_every_task_in_turn():
    rows = [row(number) for number in range(30)] + [row(50, task="b"), row(51, task="c"), row(52, task="d", audio=[])]
    picked = pick_examples(rows, seed=1)
    assert len(picked) == 20
    assert {item["task"] for item in picked[:3]} == {"sound_name", "b", "c"}
    assert picked == pick_examples(rows, seed=1)
    assert len(rows) == 33


def test_losses_are_read_by_stage(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text("stage,step,loss\nalign,1,4.0\nalign,2,\nalign,3,nan\nalign,4,2.0\ntune,1,1.5\ntune,2,1.0\n")
    curves = read_losses(table)
    assert [(curve.name, list(curve.steps), list(curve.values)) for curve in curves] == [
        ("align", [1, 4], [4.0, 2.0]),
        ("tune", [1, 2], [1.5, 1.0]),
    ]
    assert "<svg" in loss_curve(tmp_path)


def test_a_picture_stands_in_for_a_missing_table(tmp_path):
    assert loss_curve(tmp_path) == ""
    (tmp_path / "loss.png").write_bytes(b"\x89PNG")
    assert "data:image/png;base64,iVBORw==" in loss_curve(tmp_path)


def test_table_has_a_row_for_each_task():
    table = metrics_table(METRICS)
    assert table.row_count == 2
    assert [str(cell) for cell in table.columns[2].cells] == ["75.0 %", "125.0 %"]
    assert [str(cell.style) for cell in table.columns[2].cells] == ["bold green", "bold red"]
    assert percent(None) == "–"
