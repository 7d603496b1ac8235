"""Whole runs with several objectives, stages that start from another, targets of the language model, early ends."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import lalm.training.train as train
from lalm.errors import CheckpointError, TrainingError
from lalm.model.checkpoint import load_run
from lalm.training.metrics import read_metrics
from lalm.training.trainer import LalmTrainer

pytestmark = pytest.mark.slow

SMALL = {"batch_records": 4, "micro_batch_tokens": 200, "save_every_steps": 2, "steps": 4}
THREE_OBJECTIVES = {
    "name": "align",
    "objectives": {"language_model": 1.0, "contrastive": 0.5, "matching": 0.5},
    "learning_rates": {"projector": 0.01, "heads": 0.01},
    **SMALL,
}


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


def rows(folder) -> list[dict]:
    return read_metrics(folder / "metrics.csv")


def losses(folder) -> list[float]:
    return [row["loss"] for row in rows(folder)]


def test_three_objectives_leave_their_values_and_their_heads_apart(make_recipe):
    run = train.run_recipe(make_recipe(stages=[THREE_OBJECTIVES]))
    for row in rows(run):
        parts = [row[f"loss/objective/{name}"] for name in ("language_model", "contrastive", "matching")]
        assert row["loss"] == pytest.approx(parts[0] + 0.5 * parts[1] + 0.5 * parts[2], rel=1e-4)
        assert {"loss/task/Pitch", "loss/task/Letters", "loss/source/tones"} <= row.keys()
        assert row["loss/source/tones"] == pytest.approx(parts[0], rel=1e-4)
        assert row["grad_norm"] == pytest.approx(
            (row["grad_norm/projector"] ** 2 + row["grad_norm/heads"] ** 2) ** 0.5, rel=1e-4
        )
    stage = run / "stages" / "align"
    assert all(name.startswith("objective_heads.matching") for name in load_file(stage / "heads.safetensors"))
    for path in (stage / "trained.safetensors", run / "trained.safetensors"):
        assert not any("heads" in name for name in load_file(path))


def test_a_linear_probe_trains_its_head_and_nothing_else(make_recipe):
    probe = {"name": "probe", "objective": "classification", "head_input": "encoder", "learning_rates": {"heads": 0.1},
             **SMALL}  # fmt: skip
    first = {"name": "align", "learning_rates": {"projector": 0.01}, **SMALL}
    run = train.run_recipe(make_recipe(stages=[first, {**probe, "steps": 30}]))
    assert load_file(run / "stages/probe/trained.safetensors") == {}
    classes = json.loads((run / "stages/probe/classes.json").read_text())
    assert classes == [["Letters", a * 2] for a in "wxyz"] + [["Pitch", a] for a in "abcd"]
    curve = [row["loss"] for row in rows(run) if row["stage"] == "probe"]
    assert sum(curve[-5:]) / 5 < curve[0]
    before, after = load_file(run / "stages/align/trained.safetensors"), load_file(run / "trained.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_loss_a_record_does_not_depend_on_how_a_step_is_cut(make_recipe):
    """Accumulation and packing: the same curve, where short and long answers count alike."""
    base = make_recipe().model_dump(mode="json")
    language_model = {**base["language_model"], "lora": {"rank": 4, "dropout": 0.0}}
    stage = {**SMALL, "name": "one", "learning_rates": {"projector": 0.01, "lora": 0.01}, "loss_per": "record",
             "task_weights": {"Pitch": 3.0}}  # fmt: skip
    curves = {}
    for name, tokens, packing in (("whole", 600, "shared_prefix"), ("cut", 90, "shared_prefix"), ("rows", 600, "none")):
        data = {**base["data"], "packing": packing}
        if packing == "none":
            # The records of a step differ with sharing; without, they are compared to packed rows.
            curves["packed"] = losses(train.run_recipe(make_recipe("packed", stages=[stage], data={**data, "packing":
                                      "rows"}, language_model=language_model)))  # fmt: skip
        recipe = make_recipe(
            name, stages=[{**stage, "micro_batch_tokens": tokens}], data=data, language_model=language_model
        )
        curves[name] = losses(train.run_recipe(recipe))
    assert curves["cut"] == pytest.approx(curves["whole"], abs=2e-5)
    assert curves["rows"] == pytest.approx(curves["packed"], abs=2e-5)


def count_builds(monkeypatch) -> list[int]:
    """A list that gets an entry for every model that is built."""
    built, original = [], train.build_model

    def counted(recipe):
        built.append(1)
        return original(recipe)

    monkeypatch.setattr(train, "build_model", counted)
    return built


def test_a_stage_starts_from_a_named_earlier_one(make_recipe, monkeypatch):
    """c starts from a: what b trained is not in it, and training it alone later gives the same."""
    built = count_builds(monkeypatch)
    stages = [
        {"name": "a", "learning_rates": {"projector": 0.01}, **SMALL},
        {"name": "b", "learning_rates": {"projector": 0.01, "lora": 0.01}, **SMALL},
        {"name": "c", "learning_rates": {"projector": 0.005}, "starts_from": "a", **SMALL},
    ]
    run = train.run_recipe(make_recipe(stages=stages))
    assert len(built) == 2, "a's file has no adapter, so c's model is a new one"
    skipped = train.run_recipe(make_recipe("skipped", stages=[stages[0], {**stages[2], "starts_from": None}],
                                           seed=0))  # fmt: skip
    kept = load_file(run / "trained.safetensors")
    lora = [name for name in kept if "lora_B" in name]
    assert lora
    assert not any(kept[name].any() for name in lora), "b's adapter reached c"
    assert any(tensor.any() for name, tensor in load_file(run / "stages/b/trained.safetensors").items()
               if "lora_B" in name)  # fmt: skip
    before = losses(run)[8:]
    train.run_recipe(make_recipe(stages=stages), stage="c", resume=False)
    assert losses(run)[8:] == before
    assert before[0] == pytest.approx(losses(skipped)[4], abs=2.0)


def test_a_stage_that_starts_from_an_earlier_one_needs_no_new_model_if_its_file_holds_all_that_trained(
    make_recipe, monkeypatch
):
    """c starts from a, in the model that b left: the losses and weights that it has alone, in a model of its own."""
    both = {"projector": 0.01, "lora": 0.01}
    stages = [
        {"name": "a", "learning_rates": both, **SMALL},
        {"name": "b", "learning_rates": {"lora": 0.01}, **SMALL},
        {"name": "c", "learning_rates": {"lora": 0.005}, "starts_from": "a", "mix_positions": 0.5, **SMALL},
    ]
    built = count_builds(monkeypatch)
    run = train.run_recipe(make_recipe(stages=stages))
    assert len(built) == 1
    before, kept = losses(run), load_file(run / "trained.safetensors")
    train.run_recipe(make_recipe(stages=stages), stage="c", resume=False)
    assert len(built) == 2
    assert losses(run) == before
    again = load_file(run / "trained.safetensors")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_a_stage_ends_as_the_mean_of_itself_and_another(make_recipe):
    """b and c start from a; c's file and the model that is saved are the mean. Redoing c gives the same."""
    both = {"projector": 0.01, "lora": 0.01}
    stages = [
        {"name": "a", "learning_rates": {"projector": 0.01}, **SMALL},
        {"name": "b", "learning_rates": both, **SMALL},
        {"name": "c", "learning_rates": both, "starts_from": "a", "mix_positions": 0.5, **SMALL},
    ]
    alone = train.run_recipe(make_recipe("alone", stages=stages))
    run = train.run_recipe(make_recipe("mean", stages=[*stages[:2], {**stages[2], "average_with": ["b"]}]))
    b, c = (load_file(alone / f"stages/{name}/trained.safetensors") for name in "bc")
    mean = load_file(run / "stages/c/trained.safetensors")
    assert any(not torch.equal(b[name], c[name]) for name in b)
    for name in b:
        torch.testing.assert_close(mean[name], (b[name] + c[name]) / 2)
    saved = load_file(run / "trained.safetensors")
    assert all(torch.equal(saved[name], mean[name]) for name in mean)
    train.run_recipe(make_recipe("mean", stages=[*stages[:2], {**stages[2], "average_with": ["b"]}]), stage="c",
                     resume=False)  # fmt: skip
    again = load_file(run / "stages/c/trained.safetensors")
    assert all(torch.equal(again[name], mean[name]) for name in mean)


def test_the_adapter_trains_at_the_stages_strength_and_is_saved_at_1(make_recipe):
    """The first loss of the second stage shows the adapter's strength; the run answers with it as trained."""
    base = make_recipe().model_dump(mode="json")
    language_model = {**base["language_model"], "lora": {"rank": 4, "dropout": 0.0}}
    first = {"name": "a", "learning_rates": {"projector": 0.01, "lora": 0.1}, **SMALL}
    curves, weights = {}, {}
    for scale in (1.0, 0.25):
        second = {"name": "b", "learning_rates": {"projector": 0.01}, "lora_scale": scale, **SMALL}
        run = train.run_recipe(make_recipe(f"run{scale}", stages=[first, second], language_model=language_model))
        curves[scale] = losses(run)
        weights[scale] = {
            name: value for name, value in load_file(run / "trained.safetensors").items() if "lora" in name
        }
        assert load_run(run)[0].lora_scale == 1.0
    assert curves[1.0][:4] == curves[0.25][:4]
    assert curves[1.0][4] != curves[0.25][4]
    assert all(torch.equal(weights[1.0][name], weights[0.25][name]) for name in weights[1.0])


def test_only_patterns_that_match_train(make_recipe, monkeypatch):
    built = []
    original = train.build_model

    def build(*args, **kwargs):
        model, processor = original(*args, **kwargs)
        built.append((model, {name: value.detach().clone() for name, value in model.named_parameters()}))
        return model, processor

    monkeypatch.setattr(train, "build_model", build)
    stage = {"name": "one", "learning_rates": {"encoder": 0.01, "projector": 0.01},
             "only": {"encoder": ["*.layers.0.fc1.*", "*.layer_norm.weight"]}, **SMALL}  # fmt: skip
    run = train.run_recipe(make_recipe(stages=[stage]))
    model, before = built[0]
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    in_encoder = {name for name in changed if name.startswith("audio_tower.")}
    assert in_encoder
    assert all(".layers.0.fc1." in name or name.endswith(".layer_norm.weight") for name in in_encoder)
    assert any(name.startswith("multi_modal_projector.") for name in changed)
    assert set(load_file(run / "stages/one/trained.safetensors")) >= changed
    wrong = {**stage, "only": {"encoder": ["*.layers.7.*"]}}
    with pytest.raises(TrainingError, match=r"only.encoder: no parameter is named like '\*\.layers\.7\.\*'"):
        train.run_recipe(make_recipe("wrong", stages=[wrong]))


def test_continuations_of_the_language_model_are_the_targets(make_recipe, tmp_path, monkeypatch):
    original = train.build_model

    def build(*args, **kwargs):
        """With larger weights in its layers, a random decoder of tied embeddings does not repeat the last newline."""
        model, processor = original(*args, **kwargs)
        with torch.no_grad():
            for name, value in model.parts()["language_model"]:
                value.mul_(20 if "layers" in name and value.ndim > 1 else 1)
        return model, processor

    monkeypatch.setattr(train, "build_model", build)
    path = tmp_path / "data" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[::2]:
        line["answer_type"] = "transcript"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    stage = {"name": "blsp", "answers": "continued", "continuation_prompt": "Go on:", "continuation_tokens": 6,
             "learning_rates": {"projector": 0.01}, **SMALL}  # fmt: skip
    run = train.run_recipe(make_recipe(stages=[stage]))
    written = {row["id"]: row["text"] for row in map(
        json.loads, (run / "stages/blsp/continuations.jsonl").read_text().splitlines())}  # fmt: skip
    assert set(written) == {line["id"] for line in lines[::2]}
    assert any(written.values())
    done = json.loads((run / "stages/blsp/done.json").read_text())
    assert done["records"] == sum(bool(text.strip()) for text in written.values())
    before = (run / "stages/blsp/continuations.jsonl").read_bytes()
    again = train.run_recipe(make_recipe("again", stages=[stage]))
    assert (again / "stages/blsp/continuations.jsonl").read_bytes() == before
    assert losses(again) == losses(run)


@pytest.mark.parametrize("load_best", [None, False])
def test_a_stage_ends_when_the_held_out_loss_stops_falling(make_recipe, monkeypatch, load_best):
    values = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    monkeypatch.setattr("lalm.training.held_out.held_out_loss", lambda model, batches: next(values))
    stage = {**SMALL, "name": "one", "learning_rates": {"projector": 0.01}, "steps": 50, "evaluate_every_steps": 3,
             "evaluate_splits": ["train"], "stop_after": 2, "load_best": load_best}  # fmt: skip
    recipe = make_recipe(stages=[stage])
    recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"keep_checkpoints": 1})})
    run = train.run_recipe(recipe)
    done = json.loads((run / "stages/one/done.json").read_text())
    kept, loss = (12, 2.25) if load_best is False else (6, 2.0)
    assert (done["steps"], done["planned_steps"], done["kept_step"], done["held_out_loss"]) == (12, 50, kept, loss)
    measured = {row["step"]: row["held_out_loss"] for row in rows(run) if row["held_out_loss"] is not None}
    assert measured == {3: 3.0, 6: 2.0, 9: 2.5, 12: 2.25}
    saved, last = (load_file(run / f"stages/one/checkpoint-{step}/trained.safetensors") for step in (kept, 12))
    weights = load_file(run / "trained.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.items())
    assert all(torch.equal(last[name], saved[name]) for name in last) == (load_best is False)
    # A kill between the last checkpoint and done.json: the stage is over, and trains no further.
    (run / "stages/one/done.json").unlink()
    train.run_recipe(recipe)
    assert json.loads((run / "stages/one/done.json").read_text())["kept_step"] == kept


def test_augmented_clips_are_the_same_after_a_resume(make_recipe, kill_at):
    base = make_recipe().model_dump(mode="json")
    data = {**base["data"], "cache_states": False}
    augment = {"gain_db": 6, "noise_db": 10, "speed": 1.3, "mix_probability": 0.5, "mask_frames": 8, "mask_bins": 8}
    stage = {"name": "one", "learning_rates": {"projector": 0.01}, "augment": augment, **SMALL}
    twin = train.run_recipe(make_recipe("twin", stages=[stage], data=data))
    plain = train.run_recipe(make_recipe("plain", stages=[{**stage, "augment": None}], data=data))
    assert losses(plain) != losses(twin)
    recipe = make_recipe("run", stages=[stage], data=data)
    kill_at(4)
    with pytest.raises(Killed):
        train.run_recipe(recipe)
    kill_at(None)
    assert losses(train.run_recipe(recipe)) == losses(twin)


def test_a_full_disk_is_told_with_the_last_checkpoint(make_recipe, monkeypatch):
    recipe = make_recipe(stages=[{"name": "one", "learning_rates": {"projector": 0.01}, **SMALL}])
    original = train.MetricsFile.add

    def full(self, row):
        if row["step"] == 4:
            raise OSError(28, "No space left on device")
        original(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(train.MetricsFile, "add", full)
        with pytest.raises(CheckpointError, match=r"the disk is full\. The last whole checkpoint is .*checkpoint-2\."):
            train.run_recipe(recipe)
    run = train.run_recipe(recipe)
    assert losses(run) == losses(train.run_recipe(make_recipe("twin", stages=recipe.model_dump(mode="json")["stages"])))
