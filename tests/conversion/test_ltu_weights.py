"""LTU's released checkpoint in our model, against the published code.

`ltu.json` holds the names and shapes that its code saves and what it computes; recomputed so, from YuanGongND/ltu,
`src/ltu/hf-dev/transformers-main/src/transformers/models/llama/modeling_llama.py`: `LlamaForCausalLM` with the sizes of
the recipe's decoder, its `CAVMAEFTAudio` with `embed_dim=128, num_heads=2, mlp_ratio=0.75` and its `audio_proj` of
width 128, in `peft.get_peft_model` (rank 2, alpha 8, q_proj and v_proj), attention and MLP those of timm 0.4.5. Every
saved tensor is `formula` of its name, the decoder's others are of theirs without `base_model.model.` before it.
`FILTERBANK` as `audio_input` and `IDS` as `input_ids` give `states` (the encoder's, their mean over frequency; every
21st step, every 31st number), `positions` (what enters the first decoder layer before the text; every seventh, every
fifth number) and the last `logits` (every 31st). In eval mode, without autocast; transformers 5 needs `post_init` and
the decorators for docstrings put out of the way.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from formula import fill, filled, formula
from typer.testing import CliRunner

from lalm.cli import app
from lalm.conversion.convert import load_official, official_state, read_official
from lalm.conversion.gama import GAMA
from lalm.conversion.ltu import LTU
from lalm.encoders import load_encoder
from lalm.errors import CheckpointError, ModelError
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run
from lalm.recipe.encoders import CavMaeSection

EXPECTED = json.loads((Path(__file__).parent / "ltu.json").read_text(encoding="utf-8"))
PREFIX = "base_model.model.model."
SILENCE = 5.081 / 4.4849
"""A frame of zeros, normalised."""
FILTERBANK = formula("filterbank", (2, 1024, 128)) * 5
FILTERBANK[1, 700:] = SILENCE
IDS = torch.tensor([[1, *range(20, 31)]] * 2)
"""The BOS token and text; the released code puts the audio before it."""
FRAMES = torch.tensor([1024, 700])
SILENT_NORMS = {
    f"{PREFIX}audio_encoder.{block}.{norm}{kind}.{kept}"
    for blocks, kinds in (([f"blocks_a.{n}" for n in range(11)], ("_a", "_v")), (["blocks_u.0"], ("", "_v")))
    for block in blocks
    for kind in kinds
    for norm in ("norm1", "norm2")
    for kept in ("weight", "bias")
}
"""Of three pairs in each block of the encoder those that no sound passes through."""


@pytest.fixture
def model(small_recipe):
    torch.manual_seed(0)
    return build_model(small_recipe("ltu"), device="cpu")[0]


@pytest.fixture
def official():
    return filled(EXPECTED["shapes"])


def fill_language_model(model) -> None:
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if ".lora_" not in name:
                parameter.copy_(formula("base_model.model." + name.replace(".base_layer", ""), parameter.shape))


def close(ours, expected, tolerance=1e-5):
    torch.testing.assert_close(ours, torch.tensor(expected), atol=tolerance, rtol=tolerance)


def test_names_and_shapes_are_those_of_the_published_code(model):
    ours = {name: list(value.shape) for name, value in official_state(model, LTU).items()}
    assert ours.keys() <= EXPECTED["shapes"].keys()
    assert all(EXPECTED["shapes"][name] == shape for name, shape in ours.items())
    assert EXPECTED["shapes"].keys() - ours.keys() == SILENT_NORMS


@torch.no_grad()
def test_states_positions_and_logits_are_those_of_the_published_code(model, official):
    load_official(model, official, LTU)
    fill_language_model(model)
    states, num_steps = model.encode_audio(FILTERBANK.transpose(1, 2), FRAMES, torch.tensor([1, 1]))
    assert num_steps.tolist() == [64, 64]
    close(states[:, ::21, ::31].reshape(2, -1), EXPECTED["states"][0], 1e-4)
    positions, num_positions = model.project_audio(None, None, None, states, num_steps)
    assert num_positions.tolist() == [32, 32]
    close(positions[:, ::7, ::5].reshape(2, -1), EXPECTED["positions"])
    ids = torch.cat([torch.full((2, 32), model.config.audio_token_id), IDS], dim=1)
    logits = model(input_ids=ids, audio_states=states, audio_state_lengths=num_steps).logits
    close(logits[:, -1, ::31], EXPECTED["logits"])


def test_norms_that_no_sound_passes_through_change_nothing(model, official):
    load_official(model, official, LTU)
    before = official_state(model, LTU)
    for name in official.keys() - before.keys():
        official[name] = torch.full_like(official[name], 7.0)
    load_official(model, official, LTU)
    assert all(torch.equal(before[name], value) for name, value in official_state(model, LTU).items())


def test_there_and_back_is_bit_equal(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_()
    before = official_state(model, LTU)
    fill(model)
    assert not any(torch.equal(before[name], value) for name, value in official_state(model, LTU).items())
    load_official(model, before, LTU)
    after = official_state(model, LTU)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_difference_is_listed_and_nothing_is_loaded(model, official):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del official[f"{PREFIX}audio_encoder.blocks_u.0.norm1_a.bias"]
    official[f"{PREFIX}audio_encoder.blocks_a.3.norm3.bias"] = torch.ones(3)
    official[f"{PREFIX}audio_proj.1.bias"] = torch.ones(5)
    with pytest.raises(CheckpointError) as refusal:
        load_official(model, official, LTU, "ltu_ori_paper.bin")
    message = str(refusal.value)
    assert f"missing in the file (1): {PREFIX}audio_encoder.blocks_u.0.norm1_a.bias" in message
    assert f"left over in the file (1): {PREFIX}audio_encoder.blocks_a.3.norm3.bias" in message
    assert f"{PREFIX}audio_proj.1.bias is (5,) in the file, the recipe's multi_modal_projector.linear.bias" in message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_another_system_s_checkpoint_is_refused(model, official):
    with pytest.raises(CheckpointError, match=r"'multi_modal_projector\.linear\.weight': the released checkpoint"):
        load_official(model, official, GAMA)


def test_the_command_writes_a_run_that_loads(small_recipe, official, tmp_path):
    small_recipe("ltu")
    torch.save(official, tmp_path / "ltu_ori_paper.bin")
    arguments = ["convert", str(tmp_path / "small_ltu.yaml"), str(tmp_path / "ltu_ori_paper.bin")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    model, processor, recipe = load_run(tmp_path / "run", device="cpu")
    assert recipe.encoders[0].base == str(tmp_path / "ltu_ori_paper.bin")
    assert processor.num_positions(16000) == 32
    for name, value in official_state(model, LTU).items():
        assert torch.equal(value, official[name]), name


def section(path, **options):
    return CavMaeSection(base=str(path), **options)


def test_the_encoder_starts_from_a_checkpoint_or_from_a_whole_cav_mae(official, tmp_path):
    prefix = f"{PREFIX}audio_encoder."
    own = {name.removeprefix(prefix): value for name, value in official.items() if name.startswith(prefix)}
    images = {"blocks_v.0.norm1.weight": torch.ones(3), "modality_v": torch.ones(3), "mlp_head.1.weight": torch.ones(3),
              "norm.bias": torch.ones(3), "patch_embed_v.proj.bias": torch.ones(3)}  # fmt: skip
    whole = {f"module.{name}": value for name, value in (own | images).items()}
    torch.save(official, tmp_path / "ltu.bin")
    torch.save(whole, tmp_path / "as_46.6.pth")
    state = load_encoder(section(tmp_path / "ltu.bin")).state_dict()
    other = load_encoder(section(tmp_path / "as_46.6.pth")).state_dict()
    assert all(torch.equal(other[name], value) for name, value in state.items())
    assert torch.equal(state["model.audio_blocks.3.norm1.weight"], own["blocks_a.3.norm1.weight"])
    tapped = load_encoder(section(tmp_path / "ltu.bin", layers=(8, 11))).state_dict()
    assert torch.equal(tapped["model.tap_norms.8.weight"], torch.ones(128))
    whole["module.blocks_a.0.norm4.bias"] = whole.pop("module.blocks_a.0.norm1.bias")
    torch.save(whole, tmp_path / "wrong.pth")
    with pytest.raises(ModelError, match=r"missing blocks_a\.0\.norm1\.bias; left over blocks_a\.0\.norm4\.bias"):
        load_encoder(section(tmp_path / "wrong.pth"))
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth: holds no audio branch of CAV-MAE; a fine-tuned"):
        load_encoder(section(tmp_path / "other.pth"))
    with pytest.raises(ModelError, match=r"cav_mae: base 'as_46\.6\.pth' is no file here"):
        load_encoder(section("as_46.6.pth"))


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "ltu.bin").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"ltu\.bin: cannot be read as a checkpoint of tensors alone"):
        read_official(tmp_path / "ltu.bin")
    with pytest.raises(ModelError, match=r"ltu\.bin: cannot be read as tensors alone"):
        load_encoder(section(tmp_path / "ltu.bin"))
