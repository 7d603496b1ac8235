"""From a run folder to its metrics, predictions and report, and which records are held out."""

import json
import sys
from types import ModuleType

import pytest

from lalm.data.records import Record, write_records
from lalm.errors import DataError
from lalm.evaluation import runner
from lalm.evaluation.held_out import sample_per_task, split_records
from lalm.evaluation.measuring import Evaluation
from lalm.evaluation.runner import evaluate_run, read_metrics, write_results
from lalm.recipe.schema import Recipe


def record(number, split="test", task="a", **extra):
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": f"answer {number}"}]
    return Record(id=f"{split}{number}", audio=("clips/x.wav",), turns=turns, task=task, split=split, **extra)


def recipe_of(folder, sources=None, **evaluation):
    return Recipe.model_validate(
        {
            "name": "tiny",
            "encoders": [{"name": "whisper", "base": "random"}],
            "projector": {"name": "mlp"},
            "language_model": {"base": "random"},
            "data": {"folder": str(folder), "sources": sources or {"own": {"records": "own.jsonl", "max_records": 1}}},
            "stages": [{"name": "align", "steps": 3, "learning_rates": {"projector": 0.001}}],
            "evaluation": evaluation,
        }
    )


def test_held_out_records_are_those_of_the_evaluation_splits(tmp_path):
    write_records(tmp_path / "own.jsonl", [record(0), record(1, "train"), record(2, "validation"), record(3, "train")])
    test, train, problems = split_records(recipe_of(tmp_path))
    assert [item.id for item in test] == ["test0"]
    assert [item.id for item in train] == ["train1", "train3"]
    assert test[0].audio == (str(tmp_path / "clips/x.wav"),)
    assert problems == {}
    test, train, _ = split_records(recipe_of(tmp_path, splits=["validation"]))
    assert [item.id for item in test] == ["validation2"]


def test_a_source_keeps_its_tasks_and_an_id_counts_once(tmp_path):
    write_records(tmp_path / "own.jsonl", [record(0), record(1, task="b")])
    sources = {"one": {"records": "own.jsonl", "tasks": ["a"]}, "two": {"records": "own.jsonl", "tasks": ["a"]}}
    test, _, _ = split_records(recipe_of(tmp_path, sources))
    assert [item.id for item in test] == ["test0"]


def test_nothing_held_out_is_an_error_that_says_what_to_do(tmp_path):
    write_records(tmp_path / "own.jsonl", [record(0, "train")])
    with pytest.raises(DataError, match=r"no records to evaluate on.*\['own'\].*\['test'\].*Set evaluation.splits"):
        split_records(recipe_of(tmp_path))


def test_the_sample_of_a_task_is_seeded_and_keeps_the_order():
    records = [record(number, task="ab"[number % 2]) for number in range(40)]
    sampled = sample_per_task(records, 5, seed=0)
    assert [item.task for item in sampled].count("a") == [item.task for item in sampled].count("b") == 5
    assert sampled == sample_per_task(records, 5, seed=0)
    assert sampled != sample_per_task(records, 5, seed=1)
    assert sampled == sorted(sampled, key=records.index)
    assert sample_per_task(records, None, seed=0) == records


def test_results_are_written_whole(tmp_path):
    assert read_metrics(tmp_path) == {}
    write_results(tmp_path, {"tasks": {"a": {"n": 1, "probe": None}}}, [{"id": "x", "truth": "où"}, {"id": "y"}])
    assert read_metrics(tmp_path)["tasks"] == {"a": {"n": 1, "probe": None}}
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["x", "y"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.jsonl"]


class Processor:
    sampling_rate = 16_000


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder whose model is loaded and measured by stand-ins; what the latter was given is kept in `asked`."""
    recipe, asked = recipe_of(tmp_path), {}
    write_records(tmp_path / "own.jsonl", [record(number) for number in range(4)])
    (tmp_path / "clips").mkdir()

    def measured(model, processor, records, clips, options, **given):
        asked.update(given, records=records, options=options)
        rows = [
            {"id": item.id, "task": item.task, "audio": [], "question": item.question, "truth": item.answer,
             "reply": "x", "correct": False, "details": {}} for item in records
        ]  # fmt: skip
        tasks = {"a": {"n": len(rows), "metric": "accuracy", "accuracy": 0.0, "silent": None}}
        metrics = {"tasks": tasks, "wall_seconds": {"answer": 1.0}, "num_records": len(rows), "skipped": []}
        return Evaluation(metrics, rows if asked.get("usable", True) else [])

    checkpoint, loading = ModuleType("checkpoint"), ModuleType("load")
    checkpoint.load_run = lambda folder: (None, Processor(), recipe)
    loading.load_recipe = lambda path, overrides: recipe
    monkeypatch.setitem(sys.modules, "lalm.model.checkpoint", checkpoint)
    monkeypatch.setitem(sys.modules, "lalm.recipe.load", loading)
    monkeypatch.setattr(runner, "evaluate_model", measured)
    monkeypatch.setattr(runner, "open_state_cache", lambda *given: given)
    return tmp_path, asked


def test_a_run_is_measured_as_its_recipe_says(run, capsys):
    folder, asked = run
    (folder / "metrics.json").write_text('{"wall_seconds": {"train": 60.0, "answer": 9.0}}')
    metrics = evaluate_run(folder, progress=False)
    assert (asked["batch_size"], len(asked["records"]), asked["options"].max_new_tokens) == (16, 4, 64)
    assert asked["yardsticks"] == ("silent", "swapped", "majority", "chance", "probe")
    assert metrics["wall_seconds"].keys() == {"train", "answer", "load", "evaluate"}
    assert (metrics["wall_seconds"]["train"], metrics["wall_seconds"]["answer"]) == (60.0, 1.0)
    assert read_metrics(folder)["tasks"]["a"]["n"] == 4
    assert (folder / "report.html").exists()
    assert "tiny: 4 held-out records" in capsys.readouterr().out


def test_arguments_replace_the_recipe(run):
    folder, asked = run
    evaluate_run(folder, max_records_per_task=2, batch_size=3, yardsticks=(), report=False, progress=False)
    assert (asked["batch_size"], len(asked["records"]), asked["yardsticks"]) == (3, 2, ())
    assert not (folder / "report.html").exists()


def test_records_that_break_the_contract_are_listed(run):
    folder, _ = run
    recipe = recipe_of(folder).model_copy(
        update={"data": recipe_of(folder).data.model_copy(update={"max_bad_share": 0.5})}
    )
    sys.modules["lalm.model.checkpoint"].load_run = lambda path: (None, Processor(), recipe)
    with (folder / "own.jsonl").open("a") as out:
        out.write("not json\n")
    skipped = evaluate_run(folder, report=False, progress=False)["skipped"]
    assert len(skipped) == 1
    assert "own.jsonl:5" in skipped[0]["id"]


def test_a_run_without_any_usable_clip_is_refused(run):
    folder, asked = run
    asked["usable"] = False
    with pytest.raises(DataError, match="none of the 4 held-out records can be used"):
        evaluate_run(folder, progress=False)
    assert not (folder / "metrics.json").exists()


def test_the_cache_is_opened_for_the_model_that_was_loaded(run):
    folder, asked = run
    evaluate_run(folder, report=False, progress=False)
    assert [type(item) for item in asked["cache"]] == [Recipe, type(None), Processor]
