"""What `lalm runs` reads of run folders, whole, half trained and damaged."""

from __future__ import annotations

import json

import pytest

from lalm.errors import RecipeError
from lalm.recipe.load import save_recipe
from lalm.training.metrics import MetricsFile
from lalm.training.run_list import find_runs, measured_differences, read_run, read_runs, recipe_differences


@pytest.fixture
def runs(tmp_path, make_recipe):
    """Two runs, `a` half trained and `b` trained and measured, and a folder that is none."""
    folder = tmp_path / "runs"
    for name, steps in (("a", 3), ("b", 6)):
        recipe = make_recipe(f"runs/{name}")
        stages = (recipe.stages[0].model_copy(update={"batch_records": steps}), recipe.stages[1])
        run = folder / name
        save_recipe(recipe.model_copy(update={"name": f"recipe-{name}", "stages": stages}), run / "recipe.yaml")
        file = MetricsFile(run / "metrics.csv")
        file.rewind(0)
        for step in range(1, steps + 1):
            stage = "align" if step < 5 else "instruct"
            file.add({"stage": stage, "step": step, "global_step": step, "loss": 1.0 * step, "seconds": 2.0})
        (run / "stages" / "align").mkdir(parents=True)
        (run / "stages" / "align" / "done.json").write_text("{}")
    tasks = {"pitch": {"n": 4, "accuracy": 0.75}, "words": {"n": 2, "wer": 1.25}, "empty": {"n": 0}}
    (folder / "b" / "metrics.json").write_text(json.dumps({"tasks": tasks}))
    (folder / "notes").mkdir()
    return folder


def test_a_summary_is_what_the_files_say(runs):
    assert [path.name for path in find_runs(runs)] == ["a", "b"]
    a, b = (read_run(runs / name) for name in "ab")
    assert (a.progress, a.steps, a.last_loss, a.training_seconds, a.scores) == ("1 of 2 (align)", 3, 2.0, 6.0, {})
    assert (b.steps, b.last_loss) == (6, 5.5)
    assert b.scores == {"pitch (accuracy)": 0.75, "words (wer)": 1.25}
    assert (a.mean_accuracy, b.mean_accuracy) == ("", "75% over 1 tasks")


def test_two_runs_differ_in_settings_and_results(runs):
    a, b = (read_run(runs / name) for name in "ab")
    assert recipe_differences(a, b) == [("stages.align.batch_records", 3, 6)]
    assert {name: values for name, *values in measured_differences(a, b)} == {
        "stages done": ["1 of 2 (align)", "1 of 2 (align)"],
        "steps": [3, 6],
        "last loss": [2.0, 5.5],
        "training seconds": [6.0, 12.0],
        "pitch (accuracy)": [None, 0.75],
        "words (wer)": [None, 1.25],
    }


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(runs):
    (runs / "a" / "recipe.yaml").write_text("name: [")
    found, problems = read_runs(find_runs(runs))
    assert [run.path.name for run in found] == ["b"]
    assert len(problems) == 1
    assert "is not valid YAML" in problems[0]
    with pytest.raises(RecipeError, match=r"notes: is no run folder"):
        read_run(runs / "notes")
