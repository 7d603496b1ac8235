"""FSDP2 in place of ZeRO-3: the losses of one process, one file of what trains, any number of processes goes on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from curricula import tiny_curriculum, write_records
from fork_server import kills
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lalm.data.clips import ClipStore
from lalm.data.dataset import build_stage_data
from lalm.errors import RecipeError
from lalm.model.build import build_model
from lalm.recipe.load import load_recipe
from lalm.recipe.schema import FsdpSection
from lalm.training.fsdp import deal_out, give_back, repeated_layers
from lalm.training.metrics import read_metrics
from lalm.training.stages import enter_stage, parameter_groups, trained_tensors

FSDP = "fsdp={}"
CLOSE = 2e-5
"""As in test_whole_curricula: float32 sums in another order."""
RESUMED = 1e-6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_records(tmp_path / "data")
    return tmp_path


def column(recipe, name: str) -> list[float]:
    return [row[name] for row in read_metrics(recipe.run_folder() / "metrics.csv") if row.get(name) is not None]


def weights(recipe) -> dict:
    return load_file(recipe.run_folder() / "trained.safetensors")


def largest_difference(ours: dict, theirs: dict) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curriculum", "launches"),
    [
        ("salmonn", {"two": (2, [FSDP])}),
        (
            "ltu",
            {"two": (2, [FSDP]), "kept": (2, ["fsdp.reshard_after_forward=false",
                                              "stages.open.gradient_checkpointing=true"])},
        ),
    ],
)  # fmt: skip
def test_it_trains_as_one_process_does(runs, folder, curriculum, launches):
    """Losses, held-out losses, gradient norms of each part, and the weights in one file."""
    one = tiny_curriculum(folder, "one", curriculum, dropout=0.0)
    runs(one)
    for name, (processes, overrides) in launches.items():
        recipe = tiny_curriculum(folder, name, curriculum, *overrides, dropout=0.0)
        said = runs(recipe, processes)
        assert f"FSDP, {processes} process(es): " in said
        assert column(recipe, "loss") == pytest.approx(column(one, "loss"), abs=CLOSE), name
        assert column(recipe, "held_out_loss") == pytest.approx(column(one, "held_out_loss"), abs=CLOSE), name
        for norm in ("grad_norm", "grad_norm/projector", "grad_norm/lora"):
            assert column(recipe, norm) == pytest.approx(column(one, norm), rel=1e-3), (name, norm)
        assert largest_difference(weights(recipe), weights(one)) < 1e-3, name


@pytest.mark.slow
def test_killed_and_resumed_is_never_killed(runs, folder):
    whole, killed = (tiny_curriculum(folder, name, "salmonn", FSDP) for name in ("whole", "killed"))
    runs(whole, 2)
    for death in kills([(stage.name, stage.steps) for stage in killed.stages], 3, seed=5, processes=2):
        runs(killed, 2, fails=True, die=death)
    runs(killed, 2)
    assert column(killed, "loss") == pytest.approx(column(whole, "loss"), abs=RESUMED)
    assert largest_difference(weights(killed), weights(whole)) <= RESUMED


@pytest.mark.slow
def test_another_number_of_processes_goes_on(runs, folder):
    """A checkpoint holds weights and optimizer whole: two, four, one and two processes train one curve."""
    one, run = (tiny_curriculum(folder, name, "salmonn", FSDP, dropout=0.0) for name in ("one", "run"))
    said = runs(one)
    assert "FSDP: one process has nothing to deal out." in said
    places = [("pretrain", 3), ("instruct", 3), ("instruct", 5)]
    for processes, (stage, step) in zip((2, 4, 1), places, strict=True):
        death = {"stage": stage, "step": step, "moment": "step", "ranks": list(range(processes))}
        said = runs(run, processes, fails=True, die=death)
    assert "Note: was trained on 4 process(es), goes on with 1" in said
    runs(run, 2)
    assert column(run, "loss") == pytest.approx(column(one, "loss"), abs=CLOSE)
    assert largest_difference(weights(run), weights(one)) < 1e-3


@pytest.fixture
def alone():
    """A process group of this process, as a launcher makes it for several."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_every_parameter_is_a_share_and_trains_as_before(alone, tiny_recipe):
    """Held back after a forward pass without a backward one, and written whole; the optimizer too."""
    torch.manual_seed(0)
    model, processor = build_model(tiny_recipe, device="cpu")
    section = tiny_recipe.stages[1]
    data = build_stage_data(tiny_recipe, 1, processor, ClipStore(processor.sampling_rate))
    enter_stage(model, section)
    before = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
    batch = data.dataset[0]
    with torch.no_grad():
        expected = model.eval()(**batch).loss
    layers = [*repeated_layers(model)]
    deal_out(model, FsdpSection())
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert all(isinstance(module, FSDPModule) for module in (*layers, model))
    with torch.no_grad():
        assert torch.equal(model(**batch).loss, expected)
    assert not all(isinstance(parameter, DTensor) for parameter in model.parameters())
    give_back(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained_tensors(model).items())
    groups = parameter_groups(model, section)
    assert sorted(name for group in groups for name in group["names"]) == sorted(before)
    model(**batch).loss.backward()
    assert all(p.grad is not None for group in groups for p in group["params"])


def test_layers_of_language_model_and_encoder_are_dealt_out_one_by_one(tiny_recipe):
    model, _ = build_model(tiny_recipe)
    names = {id(module): name for name, module in model.named_modules()}
    found = [names[id(layer)] for layer in repeated_layers(model)]
    assert any(name.startswith("language_model.") for name in found)
    assert any(name.startswith("audio_tower.") for name in found)
    assert not any(later.startswith(f"{earlier}.") for earlier, later in pairwise(found))
    decoder = model.get_decoder()
    assert [name for name in found if name.startswith("language_model.")] == [names[id(x)] for x in decoder.layers]
    decoder.layers[0].shared = decoder.layers[1].mlp
    assert all(layer not in [*repeated_layers(model)] for layer in decoder.layers)
    decoder.layers[0] = nn.Identity()
    assert all(layer not in [*repeated_layers(model)] for layer in decoder.layers)


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(RecipeError, match=r"fsdp: deepspeed is given too.* Give one of them"):
        load_recipe("tiny", [FSDP, "deepspeed={}"])
    with pytest.raises(RecipeError, match=r"fsdp: deals out slices of weights, .*quantisation: int8 .*stage: 2"):
        load_recipe("tiny", [FSDP, "language_model.quantisation=int8"])
    with pytest.raises(RecipeError, match=r"fsdp.reshard_after_fwd: unknown key. Did you mean 'reshard_after_forward'"):
        load_recipe("tiny", ["fsdp.reshard_after_fwd=false"])
