"""Whole runs of a tiny random model: stages, resuming, what is refused and what a run leaves behind."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import lalm.training.train as train
from lalm.errors import CheckpointError, DataError, ModelError, RecipeError, TrainingError
from lalm.training.metrics import read_metrics
from lalm.training.trainer import LalmTrainer

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Stands for a kill: nothing in the run may catch it."""


@pytest.fixture
def kill_at(monkeypatch):
    """`kill_at(n)`: the run dies in its n-th micro-batch from now; None lets it live."""
    left = {"steps": None}
    original = LalmTrainer.training_step

    def step(self, *args, **kwargs):
        if left["steps"] is not None:
            left["steps"] -= 1
            if left["steps"] <= 0:
                raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LalmTrainer, "training_step", step)
    return lambda count: left.update(steps=count)


@pytest.fixture
def built(monkeypatch):
    """The models that the run builds, each with a copy of its first weights."""
    models = []
    original = train.build_model

    def build(*args, **kwargs):
        model, processor = original(*args, **kwargs)
        models.append((model, {name: p.detach().clone() for name, p in model.named_parameters()}))
        return model, processor

    monkeypatch.setattr(train, "build_model", build)
    return models


def losses(folder) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")]


@pytest.mark.parametrize(("long", "drawn"), [(0.0, [6, 12]), (1e9, [12])])
def test_losses_are_drawn_at_the_end_and_behind_a_long_stage(make_recipe, monkeypatch, long, drawn):
    """Once each time: how many steps the picture shows."""
    shown = []
    monkeypatch.setattr(train, "PLOT_AFTER_SECONDS", long)
    monkeypatch.setattr(train, "plot_loss", lambda metrics, image: shown.append(len(read_metrics(metrics))))
    train.run_recipe(make_recipe())
    assert shown == drawn


def test_a_run_leaves_what_it_says(make_recipe):
    called = []
    recipe = make_recipe()
    folder = train.run_recipe(recipe, evaluate=called.append)
    assert called == [folder] == [recipe.run_folder()]
    rows = read_metrics(folder / "metrics.csv")
    assert [row["global_step"] for row in rows] == list(range(1, 13))
    assert [row["stage"] for row in rows] == ["align"] * 6 + ["instruct"] * 6
    assert [row["step"] for row in rows] == [*range(1, 7), *range(1, 7)]
    assert all(row["records"] == 4 and row["audio_seconds"] > 0 and row["positions"] > 0 for row in rows)
    assert rows[0]["lr_lora"] is None
    assert rows[-1]["lr_lora"] > 0
    for name in ("recipe.yaml", "config.json", "processor_config.json", "trained.safetensors", "manifest.json"):
        assert (folder / name).is_file(), name
    assert (folder / "loss.png").is_file()
    done = json.loads((folder / "stages" / "instruct" / "done.json").read_text())
    assert (done["steps"], done["records"], done["dropped"]) == (6, 16, 0)
    assert done["loss"] == pytest.approx(sum(losses(folder)[6:]) / 6)
    assert not list(folder.rglob("*.pt")) + list(folder.rglob("*.pth")) + list(folder.rglob("*.bin"))


def test_killed_anywhere_and_resumed_is_never_killed(make_recipe, kill_at):
    """Random points in both stages, several kills in one run, dropout in the adapter."""
    twin = train.run_recipe(make_recipe("twin"))
    recipe = make_recipe("run")
    points = random.Random(7)
    num_kills = 0
    while True:
        kill_at(points.randint(3, 6) if num_kills < 6 else None)
        try:
            run = train.run_recipe(recipe)
            break
        except Killed:
            num_kills += 1
        torch.manual_seed(points.randint(0, 999))
    assert num_kills >= 3
    assert losses(run) == losses(twin)
    ours, theirs = load_file(run / "trained.safetensors"), load_file(twin / "trained.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_finished_stages_are_skipped(make_recipe, built):
    recipe = make_recipe()
    train.run_recipe(recipe, until="align")
    assert not (recipe.run_folder() / "stages" / "instruct").exists()
    assert (recipe.run_folder() / "trained.safetensors").is_file()
    before = (recipe.run_folder() / "stages" / "align" / "trained.safetensors").stat().st_mtime_ns
    train.run_recipe(recipe)
    assert (recipe.run_folder() / "stages" / "align" / "trained.safetensors").stat().st_mtime_ns == before
    split, num_built = losses(recipe.run_folder()), len(built)
    train.run_recipe(recipe)
    assert len(built) == num_built
    assert split == losses(train.run_recipe(make_recipe("whole")))


def test_a_model_that_was_not_written_is_written_from_its_stages(make_recipe, built):
    """The run dies between its last step and its last file: nothing is trained again, and nothing is lost."""
    recipe = make_recipe()
    folder = train.run_recipe(recipe)
    expected = load_file(folder / "trained.safetensors")
    steps = len(losses(folder))
    for name in ("manifest.json", "trained.safetensors"):
        (folder / name).unlink()
    assert train.run_recipe(recipe) == folder
    assert len(losses(folder)) == steps
    written = load_file(folder / "trained.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    count = len(built)
    train.run_recipe(recipe)
    assert len(built) == count, "a written model is left alone"


def test_a_stage_is_trained_anew(make_recipe):
    recipe = make_recipe()
    first = losses(train.run_recipe(recipe))
    again = losses(train.run_recipe(recipe, stage="instruct", resume=False))
    assert again == first
    with pytest.raises(CheckpointError, match=r"stage 'instruct' starts from 'align', which is not done"):
        train.run_recipe(make_recipe("other"), from_stage="instruct")


@pytest.mark.parametrize("part", ["projector", "lora", "encoder", "language_model"])
def test_a_stage_changes_its_parts_alone(make_recipe, built, part):
    """Every tensor of the model compared before and after; the encoder trains from features, not from the cache."""
    stage = {"name": "only", "learning_rates": {part: 0.01}, "steps": 3, "batch_records": 4}
    train.run_recipe(make_recipe(stages=[stage]))
    model, before = built[0]
    names = {name for name, _ in model.parts()[part]}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert changed <= names
    if part != "encoder":
        assert {name for name in names - changed if ".k_proj.bias" not in name} == set()


def test_accumulation_and_cache_change_no_loss(make_recipe):
    """Micro-batches of another size, and states from the cache or computed anew: the same curve."""
    lora = {"rank": 4, "dropout": 0.0}
    base = make_recipe().model_dump(mode="json")
    language_model = {**base["language_model"], "lora": lora}
    curves = {}
    for name, tokens, cached in (("large", 600, True), ("small", 80, True), ("uncached", 600, False)):
        stages = [{**stage, "micro_batch_tokens": tokens} for stage in base["stages"]]
        data = {**base["data"], "cache_states": cached, "cache_dtype": "float32"}
        recipe = make_recipe(name, stages=stages, data=data, language_model=language_model)
        curves[name] = losses(train.run_recipe(recipe))
    assert curves["small"] == pytest.approx(curves["large"], abs=2e-5)
    assert curves["uncached"] == pytest.approx(curves["large"], abs=2e-5)


def test_a_tiny_model_overfits(make_recipe):
    """Answers that only the sound tells: the loss falls to nothing. A frozen random encoder would hide it."""
    rates = {"encoder": 0.01, "projector": 0.01, "lora": 0.01, "language_model": 0.01}
    stage = {"name": "all", "learning_rates": rates, "steps": 160, "batch_records": 16, "warmup_steps": 5}
    curve = losses(train.run_recipe(make_recipe(stages=[stage])))
    assert curve[0] > 3
    assert sum(curve[-5:]) / 5 < 0.05


def test_a_broken_clip_does_not_stop_the_run(make_recipe, tmp_path):
    (tmp_path / "data" / "clip3.wav").write_bytes(b"RIFF no sound")
    data = {**make_recipe().model_dump(mode="json")["data"], "max_bad_share": 0.2}
    folder = train.run_recipe(make_recipe(data=data))
    done = json.loads((folder / "stages" / "align" / "done.json").read_text())
    assert (done["records"], done["dropped"]) == (14, 2)
    listed = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [item["audio"].rpartition("/")[2] for item in listed] == ["clip3.wav"]
    with pytest.raises(DataError, match=r"clip3\.wav"):
        train.run_recipe(make_recipe("strict"))


def test_a_changed_recipe_is_refused(make_recipe):
    train.run_recipe(make_recipe(), until="align")
    stages = make_recipe().model_dump(mode="json")["stages"]
    stages[1]["learning_rates"]["lora"] = 0.001
    changed = make_recipe(stages=stages, description="words are free")
    with pytest.raises(RecipeError, match=r"stages\.instruct\.learning_rates\.lora: 0\.005 -> 0\.001"):
        train.run_recipe(changed)
    train.run_recipe(changed, allow_changes=("stages.instruct",))


def test_changed_data_is_refused(make_recipe, tmp_path, kill_at):
    kill_at(5)
    with pytest.raises(Killed):
        train.run_recipe(make_recipe())
    kill_at(None)
    records = tmp_path / "data" / "train.jsonl"
    records.write_text("\n".join(records.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(TrainingError, match=r"stage 'align': its records or clips are not those"):
        train.run_recipe(make_recipe())
    train.run_recipe(make_recipe(), allow_changes=("data",), until="align")


def test_missing_data_names_the_command(make_recipe, tmp_path):
    data = {"folder": str(tmp_path / "none"), "build": "quickstart", "sources": {"a": {"records": "train.jsonl"}}}
    with pytest.raises(DataError, match=r"none/train.jsonl: no such file .* lalm data build quickstart"):
        train.run_recipe(make_recipe(data=data))
    assert not make_recipe().run_folder().exists()


def test_stage_names_are_checked(make_recipe):
    recipe = make_recipe()
    assert train.select_stages(recipe) == [0, 1]
    assert train.select_stages(recipe, stage="instruct") == train.select_stages(recipe, from_stage="instruct") == [1]
    assert train.select_stages(recipe, until="align") == [0]
    with pytest.raises(RecipeError, match=r"--stage warmup: no such stage. The recipe has: align, instruct"):
        train.select_stages(recipe, stage="warmup")
    with pytest.raises(RecipeError, match="leave out --from"):
        train.select_stages(recipe, stage="align", from_stage="align")
    with pytest.raises(RecipeError, match="--from instruct comes after --until align"):
        train.select_stages(recipe, from_stage="instruct", until="align")


def test_a_dry_run_trains_nothing(make_recipe, built, capsys):
    recipe = make_recipe()
    train.run_recipe(recipe, dry_run=True)
    shown = capsys.readouterr().out
    assert "align trains" in shown
    assert "instruct" in shown
    assert "Nothing was trained." in shown
    assert built == []
    assert not recipe.run_folder().exists()


def test_another_number_of_processes_goes_on_with_a_note_and_under_zero_is_refused(make_recipe, kill_at, capsys):
    """The checkpoint is made to look like one of two processes."""
    recipe = make_recipe()
    kill_at(5)
    with pytest.raises(Killed):
        train.run_recipe(recipe)
    kill_at(None)
    path = recipe.run_folder() / "stages" / "align" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({**plan, "processes": 2, "digest": "another"}))
    state = SimpleNamespace(num_processes=1, is_main_process=False)
    run = SimpleNamespace(recipe=recipe.model_copy(update={"deepspeed": {}}), state=state)
    data = SimpleNamespace(plan=SimpleNamespace(digest="mine", num_steps=6))
    with pytest.raises(TrainingError, match=r"stage 'align': .* written by 2 processes.*; 1 cannot read it"):
        train._check_plan(run, recipe.stages[0], data, path.parent, resumed=True)
    train.run_recipe(recipe, until="align")
    assert "Note: was trained on 2 process(es), goes on with 1" in capsys.readouterr().out


def test_float16_on_a_cpu_is_refused(make_recipe):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    language_model = {**make_recipe().model_dump(mode="json")["language_model"], "dtype": "float16"}
    with pytest.raises(ModelError, match=r"float16 needs a GPU\. Use 'auto', 'bfloat16' or 'float32'"):
        train.run_recipe(make_recipe(language_model=language_model))
