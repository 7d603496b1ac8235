"""Several processes of one run: started by each launcher as the README says, cut and resumed in other numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from curricula import tiny_curriculum, write_records
from launched import LAUNCHERS, launch, needs_deepspeed
from safetensors.torch import load_file

from lalm.data.dataset import build_stage_data
from lalm.data.examples import open_clips
from lalm.model.build import build_model
from lalm.recipe.load import save_recipe
from lalm.training.checkpoints import find_checkpoints
from lalm.training.metrics import read_metrics

pytestmark = pytest.mark.slow
ZERO_3 = {"zero_optimization": {"stage": 3}}


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")]


def without_dropout(make_recipe) -> dict:
    return {**make_recipe().model_dump(mode="json")["language_model"], "lora": {"rank": 4, "dropout": 0.0}}


@pytest.mark.parametrize(("launcher", "overrides", "banner"), LAUNCHERS)
def test_a_launcher_of_the_readme_trains(tmp_path, launcher, overrides, banner):
    """The command line itself; the losses are those of one process."""
    write_records(tmp_path / "data")
    stages = [{"name": "align", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 3, "batch_records": 4}]
    recipe = tiny_curriculum(tmp_path, "run", "salmonn", f"stages={json.dumps(stages)}", dropout=0.0)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert banner in launch(launcher, [str(tmp_path / "recipe.yaml"), *overrides], tmp_path)
    assert json.loads((tmp_path / "run/stages/align/plan.json").read_text())["processes"] == 2
    one = tiny_curriculum(tmp_path, "one", "salmonn", f"stages={json.dumps(stages)}", dropout=0.0)
    from lalm.training.train import run_recipe

    assert losses(tmp_path / "run") == pytest.approx(losses(run_recipe(one)), abs=2e-5)


def test_four_processes_train_three_objectives_as_one_does(make_recipe, runs):
    """Texts and clips are gathered from all processes, records count alike: the losses of one process, to float32's
    order of summation."""
    stage = {
        "name": "align",
        "objectives": {"language_model": 1.0, "contrastive": 0.5, "matching": 0.5},
        "contrastive_direction": "both",
        "loss_per": "record",
        "learning_rates": {"projector": 0.01, "lora": 0.01, "heads": 0.01},
        "steps": 4,
        "batch_records": 8,
        "micro_batch_tokens": 600,
    }
    one, four = (
        make_recipe(name, language_model=without_dropout(make_recipe), stages=[stage]) for name in ("one", "four")
    )
    runs(one)
    runs(four, 4)
    assert losses(four.run_folder()) == pytest.approx(losses(one.run_folder()), abs=5e-5)
    ours, theirs = (read_metrics(recipe.run_folder() / "metrics.csv") for recipe in (four, one))
    for a, b in zip(ours, theirs, strict=True):
        for name in ("loss/objective/contrastive", "loss/objective/matching", "loss/task/Pitch", "grad_norm"):
            assert a[name] == pytest.approx(b[name], abs=2e-4), name


CROSS_ATTENTION = {"every": 1, "num_heads": 2, "head_size": 8}
QUESTION_READER = {
    "name": "qformer", "window_steps": 17, "num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32,
    "dropout": 0.0, "reads_question": True}  # fmt: skip


@needs_deepspeed
@pytest.mark.parametrize(
    ("block", "changes"),
    [
        pytest.param(ZERO_3, {}, id="zero3"),
        pytest.param(ZERO_3, {"data": {"cache_states": False}}, id="zero3-live-encoder"),
        pytest.param(ZERO_3, {"projector": QUESTION_READER}, id="zero3-question-reader"),
        pytest.param(ZERO_3, {"language_model": {"cross_attention": CROSS_ATTENTION}}, id="zero3-cross-attention"),
        pytest.param(None, {"fsdp": {}, "data": {"cache_states": False}}, id="fsdp-live-encoder"),
        pytest.param(
            None,
            {"language_model": {"cross_attention": CROSS_ATTENTION}, "stage": {"gradient_checkpointing": True}},
            id="plain-cross-attention-checkpointing",
        ),
    ],
)
def test_a_process_with_text_alone_holds_up_nobody(make_recipe, tmp_path, runs, block, changes):
    """ZeRO-3 and FSDP gather the weights of a module in every process, and DDP waits for every gradient: one whose
    micro-batch has no clip sends silence through tower, projector and blocks."""
    path = tmp_path / "data" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        if number % 2:
            line["audio"] = []
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    stage = {"name": "mixed", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 4, "batch_records": 2}
    values = {
        "stages": [stage | changes.get("stage", {})],
        "data": make_recipe().model_dump(mode="json")["data"] | {"packing": "rows"} | changes.get("data", {}),
        "language_model": without_dropout(make_recipe) | changes.get("language_model", {}),
        **{name: changes[name] for name in ("projector", "fsdp") if name in changes},
    }
    one, two = (make_recipe(name, deepspeed=settings, **values) for name, settings in (("one", None), ("two", block)))
    _, processor = build_model(one)
    shares = build_stage_data(two, 0, processor, open_clips(two, processor.sampling_rate), world_size=2)
    hears = [any(shares.examples[index].clips for index in batch) for batch in shares.plan]
    assert any(first != second for first, second in zip(hears[::2], hears[1::2], strict=True))
    runs(one)
    runs(two, 2)
    assert losses(two.run_folder()) == pytest.approx(losses(one.run_folder()), abs=5e-5)


@needs_deepspeed
@pytest.mark.parametrize("block", [None, ZERO_3], ids=["plain", "zero3"])
def test_a_dead_process_leaves_a_checkpoint_and_another_number_goes_on_where_it_can(make_recipe, runs, block):
    """The second of two processes is killed. Without ZeRO one process finishes at the losses of two; under ZeRO one
    process is refused and two go on."""
    stage = {"name": "align", "learning_rates": {"projector": 0.01, "lora": 0.01}, "steps": 6, "batch_records": 4,
             "micro_batch_tokens": 400, "save_every_steps": 2}  # fmt: skip
    language_model = without_dropout(make_recipe)
    whole, run = (make_recipe(name, stages=[stage], language_model=language_model, deepspeed=block)
                  for name in ("whole", "run"))  # fmt: skip
    runs(whole, 2)
    said = runs(run, 2, fails=True, die={"stage": "align", "step": 3, "moment": "step", "ranks": [1]})
    folder = run.run_folder() / "stages" / "align"
    assert [path.name for path in find_checkpoints(folder)] == ["checkpoint-2"]
    if block is None:
        assert "stage 'align': another process of the run is gone" in said
        assert f"The last whole checkpoint is {folder / 'checkpoint-2'}." in said
        assert "Note: was trained on 2 process(es), goes on with 1" in runs(run, 1)
    else:
        said = runs(run, 1, fails=True)
        assert "its checkpoint was written by 2 processes, each with its own share of the optimizer; 1 cannot" in said
        runs(run, 2)
    assert losses(run.run_folder()) == pytest.approx(losses(whole.run_folder()), abs=2e-5)
    ours, theirs = (load_file(recipe.run_folder() / "trained.safetensors") for recipe in (run, whole))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-3


def test_a_loss_that_is_no_number_stops_all_and_each_names_its_records(make_recipe, runs):
    """A rate that breaks the weights at the first step: the second loss is no number in either process."""
    stage = {
        "name": "align",
        "learning_rates": {"projector": 1e30},
        "steps": 3,
        "batch_records": 4,
        "schedule": "constant",
    }
    recipe = make_recipe(stages=[stage])
    said = runs(recipe, 2, fails=True)
    assert "stage 'align', step 2: the loss is nan." in said
    files = [recipe.run_folder() / "stages" / "align" / f"bad_batch-{rank}.json" for rank in (0, 1)]
    written = [json.loads(path.read_text()) for path in files if path.is_file()]
    assert written
    named = [name for batch in written for name in batch["records"]]
    assert named
    assert len(set(named)) == len(named)
    assert {(batch["step"], batch["what"]) for batch in written} == {(2, "loss")}
