"""The Trainer subclass on a model that fits an eye: weighing, resuming, saving, refusing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from transformers import TrainerCallback

from lalm.errors import CheckpointError, TrainingError
from lalm.training.checkpoints import find_checkpoints
from lalm.training.stages import enter_stage
from lalm.training.trainer import LalmTrainer, training_arguments

RECIPE = SimpleNamespace(name="tiny", output=SimpleNamespace(log_to=()), deepspeed=None)


class Steps(TrainerCallback):
    """Collects what every step logs; `die_at` stops the process's run there, as a kill would."""

    def __init__(self, die_at: int | None = None):
        self.losses, self.logs, self.die_at = {}, [], die_at

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses[state.global_step] = logs["loss"]
            self.logs.append(dict(logs))

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.die_at:
            raise KeyboardInterrupt


def trainer(folder, model, stage, batches, micro_batches=1, die_at=None) -> tuple[LalmTrainer, Steps]:
    enter_stage(model, stage)
    steps = Steps(die_at)
    args = training_arguments(RECIPE, stage, folder, num_steps=stage.steps, micro_batches=micro_batches, seed=3)
    made = LalmTrainer(model, args, stage=stage, train_dataset=batches, keep_checkpoints=2, callbacks=[steps])
    return made, steps


def test_accumulation_weighs_every_token_alike(tmp_path, tiny_model, tiny_batches, make_stage):
    """One micro-batch or four: the same losses, gradients and weights, though tokens are spread unevenly."""
    tiny_model.dropout.p = 0.0
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    results = []
    for micro_batches in (1, 4):
        tiny_model.load_state_dict(start)
        stage = make_stage(steps=6, save_every_steps=100)
        run, steps = trainer(
            tmp_path / str(micro_batches), tiny_model, stage, tiny_batches(6, micro_batches), micro_batches
        )
        run.train()
        results.append((steps, {name: value.clone() for name, value in tiny_model.state_dict().items()}))
    (one, weights_one), (four, weights_four) = results
    for step, loss in one.losses.items():
        assert four.losses[step] == pytest.approx(loss, abs=1e-6)
    for a, b in zip(one.logs, four.logs, strict=True):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
        assert (
            (a["records"], a["audio_seconds"], a["positions"])
            == (4, 2.0, 28)
            == (b["records"], b["audio_seconds"], b["positions"])
        )
    for name, value in weights_one.items():
        torch.testing.assert_close(value, weights_four[name], atol=1e-5, rtol=1e-5)


def test_loss_is_the_mean_over_tokens(tmp_path, tiny_model, tiny_batches, make_stage):
    tiny_model.dropout.p = 0.0
    batches = tiny_batches(1, 4)
    whole = tiny_batches(1, 1)[0]
    with torch.no_grad():
        expected = tiny_model(whole["input_ids"], whole["labels"])["loss"].item()
    run, steps = trainer(tmp_path, tiny_model, make_stage(steps=1, save_every_steps=100), batches, 4)
    run.train()
    assert steps.losses[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("die_at", [4, 5, 7, 8, 11])
def test_killed_and_resumed_is_never_killed(tmp_path, tiny_model, tiny_batches, make_stage, die_at):
    """Dropout included: the losses after the resume, and the weights at the end, are the uninterrupted ones."""
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    stage = make_stage()
    run, twin = trainer(tmp_path / "twin", tiny_model, stage, tiny_batches(12, 2), 2)
    run.train()
    wanted = {name: value.clone() for name, value in tiny_model.state_dict().items()}

    tiny_model.load_state_dict(start)
    run, first = trainer(tmp_path / "run", tiny_model, stage, tiny_batches(12, 2), 2, die_at=die_at)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    tiny_model.load_state_dict(start)
    torch.manual_seed(99)
    checkpoint = find_checkpoints(tmp_path / "run")[-1]
    run, second = trainer(tmp_path / "run", tiny_model, stage, tiny_batches(12, 2), 2)
    run.train(resume_from_checkpoint=str(checkpoint))
    assert {**first.losses, **second.losses} == twin.losses
    assert min(second.losses) == die_at // 4 * 4 + 1
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_a_checkpoint_holds_trained_parts_and_no_pickle(tmp_path, tiny_model, tiny_batches, make_stage):
    from safetensors.torch import load_file

    run, _ = trainer(tmp_path, tiny_model, make_stage(), tiny_batches(12, 1))
    run.train()
    found = find_checkpoints(tmp_path)
    assert [path.name for path in found] == ["checkpoint-8", "checkpoint-12"]
    assert sorted(path.name for path in found[-1].iterdir()) == [
        "optimizer.json",
        "optimizer.safetensors",
        "rng-0.safetensors",
        "scheduler.json",
        "trained.safetensors",
        "trainer_state.json",
    ]
    assert set(load_file(found[-1] / "trained.safetensors")) == {
        "multi_modal_projector.0.weight",
        "multi_modal_projector.0.bias",
        "multi_modal_projector.1.weight",
        "multi_modal_projector.1.bias",
        "lora_a.weight",
        "lora_b.weight",
    }


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_half_written_checkpoint_is_never_picked_up(
    tmp_path, tiny_model, tiny_batches, make_stage, monkeypatch, error
):
    run, _ = trainer(tmp_path, tiny_model, make_stage(), tiny_batches(12, 1))

    def full_disk(folder, rank):
        if run.state.global_step == 8:
            raise error

    monkeypatch.setattr("lalm.training.checkpoints.save_random_state", full_disk)
    with pytest.raises(CheckpointError, match=r"checkpoint-8.*No space left.*checkpoint-4"):
        run.train()
    assert [path.name for path in find_checkpoints(tmp_path)] == ["checkpoint-4"]


def test_a_loss_that_is_no_number_names_the_records(tmp_path, tiny_model, tiny_batches, make_stage):
    class Poisoned(tiny_batches):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            if "r2-1" in item["record_ids"]:
                with torch.no_grad():
                    tiny_model.language_model["head"].bias.fill_(float("nan"))
            return item

    run, _ = trainer(tmp_path, tiny_model, make_stage(), Poisoned(12, 4), 4)
    with pytest.raises(TrainingError, match=r"stage 'align', step 3: the loss is nan. .*bad_batch.json"):
        run.train()
    written = json.loads((tmp_path / "bad_batch.json").read_text())
    assert written["step"] == 3
    assert written["records"] == ["r2-0"]


def test_a_gradient_that_is_no_number_names_the_records_of_the_step(tmp_path, tiny_model, tiny_batches, make_stage):
    """The loss is finite; the step is not taken."""
    run, steps = trainer(tmp_path, tiny_model, make_stage(), tiny_batches(12, 2), 2)
    tiny_model.lora_b.weight.register_hook(lambda gradient: gradient * (1.0 if run.state.global_step < 2 else np.nan))
    with pytest.raises(TrainingError, match=r"step 3: the gradient norm is nan. The 4 records of the batch"):
        run.train()
    written = json.loads((tmp_path / "bad_batch.json").read_text())
    assert (written["what"], written["records"]) == ("gradient norm", [f"r2-{number}" for number in range(4)])
    assert list(steps.losses) == [1, 2]
    assert all(torch.isfinite(parameter).all() for parameter in tiny_model.parameters())


def test_rates_are_per_part(tmp_path, tiny_model, tiny_batches, make_stage):
    run, steps = trainer(tmp_path, tiny_model, make_stage(schedule="constant"), tiny_batches(12, 1))
    run.train()
    assert [log["lr_projector"] for log in steps.logs[:4]] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert [log["lr_lora"] for log in steps.logs[:4]] == pytest.approx([0.005, 0.01, 0.015, 0.02])
    assert "lr_encoder" not in steps.logs[0]
    groups = {(g["part"], g["weight_decay"]): g["names"] for g in run.optimizer.param_groups}
    assert groups["projector", 0.01] == ["multi_modal_projector.1.weight"]
    assert groups["projector", 0.0] == [
        "multi_modal_projector.0.weight",
        "multi_modal_projector.0.bias",
        "multi_modal_projector.1.bias",
    ]
