"""GAMA's released checkpoint in our model, against the published code.

`gama.json` holds the names and shapes that its code saves and what it computes; recomputed as `ltu.json` is (see
test_ltu_weights.py), from Sreyan88/GAMA, `hf-dev-train/transformers-main/src/transformers/models/llama`: its encoder of
the same sizes, three queries, a Q-Former and two layers of the aggregator of BERT's kind with `hidden_size=128,
num_hidden_layers=3, num_attention_heads=4, intermediate_size=32`, 128 for every 768 and the decoder's width for every
4096. `states` are those of the last layer and of blocks 8 and 4. transformers 5 also needs `init_weights`,
`get_head_mask`, `invert_attention_mask` and `apply_chunking_to_forward` put back.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from formula import fill, filled
from test_ltu_weights import FILTERBANK, FRAMES, IDS, PREFIX, SILENT_NORMS, close, fill_language_model
from typer.testing import CliRunner

from lalm.cli import app
from lalm.conversion.convert import load_official, official_state, released_recipe
from lalm.conversion.gama import GAMA
from lalm.encoders import load_encoder
from lalm.errors import CheckpointError
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run
from lalm.recipe.encoders import CavMaeSection

EXPECTED = json.loads((Path(__file__).parent / "gama.json").read_text(encoding="utf-8"))
TABLE = f"{PREFIX}Qformer.bert.embeddings.position_ids"


@pytest.fixture
def official():
    return filled(EXPECTED["shapes"])


@pytest.fixture
def model(small_recipe, official, tmp_path):
    """The network that the weights were trained in, its encoder out of the file."""
    torch.save(official, tmp_path / "stage5.bin")
    recipe = released_recipe(small_recipe("gama"), GAMA, tmp_path / "stage5.bin")
    torch.manual_seed(0)
    return build_model(recipe, device="cpu")[0]


def test_names_and_shapes_are_those_of_the_published_code(model):
    ours = {name: list(value.shape) for name, value in official_state(model, GAMA).items()}
    rest = EXPECTED["shapes"].keys() - ours.keys()
    assert all(EXPECTED["shapes"][name] == shape for name, shape in ours.items())
    aggregator = {name for name in rest if "audio_aggregator_layer" in name}
    assert {name.split(".")[4] for name in aggregator} == {"crossattention", "intermediate_query", "output_query"}
    tap_norms = {f"{PREFIX}audio_encoder.norm_{tap}.{kept}" for tap in "jk" for kept in ("weight", "bias")}
    assert rest - aggregator == {TABLE, *SILENT_NORMS, *tap_norms}


@torch.no_grad()
def test_positions_and_logits_are_those_of_the_published_code(model, official):
    load_official(model, official, GAMA)
    fill_language_model(model)
    states, num_steps = model.encode_audio(FILTERBANK.transpose(1, 2), FRAMES, torch.tensor([1, 1]))
    close(states[:, ::21, ::31].reshape(2, -1), EXPECTED["states"][0], 1e-4)
    positions, num_positions = model.project_audio(None, None, None, states, num_steps)
    assert num_positions.tolist() == [3 + 64] * 2
    close(positions[:, ::7, ::5].reshape(2, -1), EXPECTED["positions"])
    ids = torch.cat([torch.full((2, 67), model.config.audio_token_id), IDS], dim=1)
    logits = model(input_ids=ids, audio_states=states, audio_state_lengths=num_steps).logits
    close(logits[:, -1, ::31], EXPECTED["logits"])


@torch.no_grad()
def test_taps_are_those_of_the_published_code(official, tmp_path):
    """As a recipe that trains reads them, with the norms that GAMA puts behind blocks 8 and 4."""
    torch.save(official, tmp_path / "stage5.bin")
    base = str(tmp_path / "stage5.bin")
    section = CavMaeSection(base=base, layers=(11, 8, 4), layers_as="separate", keep_filler=True)
    states = load_encoder(section)(FILTERBANK.transpose(1, 2), FRAMES).states
    for number, taps in enumerate(states.chunk(3, dim=-1)):
        close(taps[:, ::21, ::31].reshape(2, -1), EXPECTED["states"][number], 1e-4)


def test_what_the_published_code_drops_changes_nothing(model, official):
    """Its attention to the taps, and all else that is passed over, may hold anything."""
    load_official(model, official, GAMA)
    before = official_state(model, GAMA)
    for name in official.keys() - before.keys():
        official[name] = official[name] + 7
    load_official(model, official, GAMA)
    assert all(torch.equal(before[name], value) for name, value in official_state(model, GAMA).items())


def test_there_and_back_is_bit_equal(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_()
    before = official_state(model, GAMA)
    fill(model)
    assert not any(torch.equal(before[name], value) for name, value in official_state(model, GAMA).items())
    load_official(model, before, GAMA)
    after = official_state(model, GAMA)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_network_that_reads_the_taps_does_not_take_the_weights(small_recipe, official):
    model, _ = build_model(small_recipe("gama"), device="cpu")
    with pytest.raises(CheckpointError, match=r"readers\.0\.multihead_attn\..*no such tensor"):
        load_official(model, official, GAMA)


def test_a_missing_tensor_and_one_too_many_are_listed(model, official):
    del official[f"{PREFIX}audio_aggregator_layer_2.output.dense.bias"]
    official[f"{PREFIX}audio_aggregator_layer_3.output.dense.bias"] = torch.ones(3)
    with pytest.raises(CheckpointError) as refusal:
        load_official(model, official, GAMA, "stage5.bin")
    assert f"missing in the file (1): {PREFIX}audio_aggregator_layer_2.output.dense.bias" in str(refusal.value)
    assert f"left over in the file (1): {PREFIX}audio_aggregator_layer_3.output.dense.bias" in str(refusal.value)


def test_the_command_writes_a_run_of_the_released_network(small_recipe, official, tmp_path):
    small_recipe("gama")
    torch.save(official, tmp_path / "pytorch_model.bin")
    arguments = ["convert", str(tmp_path / "small_gama.yaml"), str(tmp_path / "pytorch_model.bin")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    model, processor, recipe = load_run(tmp_path / "run", device="cpu")
    assert not recipe.projector.reads_taps
    assert recipe.encoders[0].layers == "last"
    assert processor.num_positions(16000) == 3 + 64
    for name, value in official_state(model, GAMA).items():
        assert torch.equal(value, official[name]), name
