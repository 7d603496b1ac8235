"""Which parts train, with which rate and decay, and that a file of another shape is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lalm.errors import CheckpointError, TrainingError
from lalm.training.stages import (
    are_taken_back,
    describe,
    enter_stage,
    load_trained_tensors,
    parameter_groups,
    part_names,
    trained_tensors,
)


@pytest.mark.parametrize("part", ["projector", "lora", "encoder", "language_model"])
def test_only_the_parts_with_a_rate_train(tiny_model, make_stage, part):
    stage = make_stage(learning_rates={part: 0.1})
    counts = {count.part: count for count in enter_stage(tiny_model, stage)}
    wanted = {name for name, _ in tiny_model.parts()[part]}
    assert {name for name, p in tiny_model.named_parameters() if p.requires_grad} == wanted
    assert counts[part].num_trainable == counts[part].num_parameters > 0
    assert sum(count.num_trainable for count in counts.values()) == counts[part].num_trainable
    assert sum(count.num_parameters for count in counts.values()) == sum(p.numel() for p in tiny_model.parameters())
    assert set(part_names(tiny_model, stage)) == wanted


def test_files_take_back_what_they_hold_all_of(tiny_model, make_stage):
    """All names that trained, in parts that the files' stages have widened too, and no statistics of batches."""
    lora, projector = (make_stage(learning_rates={part: 0.1}) for part in ("lora", "projector"))
    both = make_stage(
        learning_rates={"lora": 0.1, "projector": 0.1, "heads": 0.1},
        objectives={"language_model": 1.0, "matching": 0.5},
    )
    first = tiny_model.parts()["projector"][0][0]
    a_part = make_stage(learning_rates={"projector": 0.1}, only={"projector": [first]})
    others = make_stage(learning_rates={"projector": 0.1}, only={"projector": ["*"]})
    assert are_taken_back(tiny_model, [lora, lora], [both])
    assert are_taken_back(tiny_model, [both], [projector, lora])
    assert are_taken_back(tiny_model, [a_part], [others])
    assert not are_taken_back(tiny_model, [lora], [projector])
    assert not are_taken_back(tiny_model, [lora], [])
    assert not are_taken_back(tiny_model, [projector], [a_part])
    tiny_model.statistics = nn.BatchNorm1d(2)
    assert not are_taken_back(tiny_model, [lora], [both])


@pytest.mark.parametrize("part", ["projector", "lora", "encoder", "language_model"])
def test_a_stage_changes_its_parts_and_no_other_tensor(tiny_model, tiny_batches, make_stage, part):
    """Each tensor compared before and after some optimizer steps."""
    stage = make_stage(learning_rates={part: 0.1})
    enter_stage(tiny_model, stage)
    before = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    nn.init.normal_(tiny_model.lora_b.weight)
    before["lora_b.weight"] = tiny_model.lora_b.weight.detach().clone()
    optimizer = torch.optim.AdamW(parameter_groups(tiny_model, stage))
    for index in range(3):
        item = tiny_batches(3, 1)[index]
        tiny_model(item["input_ids"], item["labels"])["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, p in tiny_model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, _ in tiny_model.parts()[part]}


def test_trained_weights_become_float32_and_frozen_ones_stay(tiny_model, make_stage):
    tiny_model.to(torch.bfloat16)
    enter_stage(tiny_model, make_stage())
    for name, parameter in tiny_model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name


def test_the_stage_sets_the_adapters_strength(tiny_model, make_stage):
    enter_stage(tiny_model, make_stage(lora_scale=0.5))
    assert tiny_model.scale == 0.5


def test_a_part_without_parameters_is_refused(tiny_model, make_stage):
    tiny_model.parts = lambda: {"projector": [], "lora": [], "encoder": [], "language_model": []}
    with pytest.raises(TrainingError, match=r"stage 'align': learning_rates.projector .* no parameters"):
        enter_stage(tiny_model, make_stage())


def test_no_decay_goes_by_type_of_module(make_stage):
    """A matrix in a module called 'ln' decays; a vector, an embedding and any normalisation do not."""

    class FamilyRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_mix = nn.Linear(3, 3)
            self.embed = nn.Embedding(4, 3)
            self.tail = FamilyRMSNorm()
            self.queries = nn.Parameter(torch.zeros(1, 2, 3))

        def parts(self):
            return {"projector": list(self.named_parameters()), "lora": [], "encoder": [], "language_model": []}

    groups = parameter_groups(Model(), make_stage(learning_rates={"projector": 0.1}, weight_decay=0.3))
    names = {group["weight_decay"]: group["names"] for group in groups}
    assert names == {0.3: ["queries", "ln_mix.weight"], 0.0: ["ln_mix.bias", "embed.weight", "tail.weight"]}


def test_weights_are_loaded_strictly(tiny_model, make_stage, tmp_path):
    enter_stage(tiny_model, make_stage())
    saved = {name: value.clone() for name, value in trained_tensors(tiny_model).items()}
    path = tmp_path / "trained.safetensors"
    save_file(saved, path)
    with torch.no_grad():
        tiny_model.lora_a.weight.zero_()
    load_trained_tensors(tiny_model, path)
    assert torch.equal(tiny_model.lora_a.weight, saved["lora_a.weight"])
    assert load_file(path).keys() == saved.keys()

    save_file({name: value for name, value in saved.items() if name != "lora_a.weight"}, path)
    with pytest.raises(CheckpointError, match=r"Missing: \['lora_a.weight'\]"):
        load_trained_tensors(tiny_model, path)
    save_file({**saved, "surplus": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"unexpected: \['surplus'\]"):
        load_trained_tensors(tiny_model, path)
    save_file({**saved, "lora_a.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match=r"lora_a.weight has shape \[2, 2\], the model has \[4, 8\]"):
        load_trained_tensors(tiny_model, path)
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(CheckpointError, match=r"trained.safetensors: cannot be read"):
        load_trained_tensors(tiny_model, path)


def test_the_description_names_every_part(tiny_model, make_stage):
    assert describe(enter_stage(tiny_model, make_stage())) == (
        "encoder 0 of 72, projector 88 of 88, lora 64 of 64, language_model 0 of 187"
    )
