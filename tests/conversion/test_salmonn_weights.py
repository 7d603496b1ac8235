"""SALMONN's released checkpoint in our model, against the published code.

`salmonn.json` holds the names and shapes that its code saves and what it computes; recomputed so, from the branch
`salmonn` of bytedance/SALMONN: a module with `ln_speech = LayerNorm(32)`, `ln_audio = LayerNorm(24)`, the
`speech_Qformer` that `init_speech_Qformer` makes (hidden size 16, four heads, 32 between, two layers, width 56, without
word and position embeddings, text branch and head, as `__init__` leaves it), `speech_query_tokens`,
`speech_llama_proj = Linear(16, 32)`, and as `llama_model` transformers' LlamaForCausalLM of the recipe's sizes, whose
parameters are `formula` of their names, in `peft.get_peft_model` (rank 2, alpha 8, q_proj and v_proj). Every trained
parameter is `formula` of its name. `_encode_auditory_feature(SPEECH, AUDIO)` gives `positions` (every fifth number);
with the embeddings of tokens 20 to 24 before and 25 to 30 behind them, `llama_model` gives the last `logits` (every
31st). In eval mode, without autocast; transformers 5 needs `init_weights`, `get_head_mask` and `invert_attention_mask`
put back.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from formula import fill, filled, formula
from typer.testing import CliRunner

from lalm.cli import app
from lalm.conversion.convert import convert_checkpoint, load_official, official_state, read_official
from lalm.conversion.salmonn import SALMONN
from lalm.errors import CheckpointError
from lalm.model.build import build_model
from lalm.model.checkpoint import load_run

EXPECTED = json.loads((Path(__file__).parent / "salmonn.json").read_text(encoding="utf-8"))
STEPS = 40
"""Two windows of 17 and six steps that the published code leaves out."""
SPEECH, AUDIO = formula("speech states", (2, STEPS, 32)), formula("audio states", (2, STEPS - 3, 24))
JOINED = torch.cat([SPEECH, torch.nn.functional.pad(AUDIO, (0, 0, 0, 3))], dim=-1)


@pytest.fixture
def model(small_recipe):
    torch.manual_seed(0)
    return build_model(small_recipe("salmonn_13b"), device="cpu")[0]


@pytest.fixture
def official():
    return filled(EXPECTED["shapes"])


def test_names_and_shapes_are_those_of_the_published_code(model):
    ours = {name: list(value.shape) for name, value in official_state(model, SALMONN).items()}
    tables = {name for name in EXPECTED["shapes"] if name.endswith("position_ids")}
    assert ours == {name: shape for name, shape in EXPECTED["shapes"].items() if name not in tables}


def test_positions_and_logits_are_those_of_the_published_code(model, official):
    load_official(model, official, SALMONN)
    fill_language_model(model)
    lengths = torch.tensor([STEPS, STEPS])
    with torch.no_grad():
        positions, num_positions = model.project_audio(None, None, None, JOINED, lengths)
        assert num_positions.tolist() == [2, 2]
        torch.testing.assert_close(positions[:, :2, ::5], torch.tensor(EXPECTED["positions"]), atol=1e-5, rtol=1e-4)
        placeholders = [model.config.audio_token_id] * 2
        ids = torch.tensor([[*range(20, 25), *placeholders, *range(25, 31)]] * 2)
        logits = model(input_ids=ids, audio_states=JOINED, audio_state_lengths=lengths).logits
    torch.testing.assert_close(logits[:, -1, ::31], torch.tensor(EXPECTED["logits"]), atol=1e-5, rtol=1e-4)


def fill_language_model(model) -> None:
    adapters = {name for name, _ in model.language_model.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if name not in adapters:
                parameter.copy_(formula(name.replace(".base_layer", ""), parameter.shape))


def test_there_and_back_is_bit_equal(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_()
    before = official_state(model, SALMONN)
    fill(model)
    assert not all(torch.equal(before[name], value) for name, value in official_state(model, SALMONN).items())
    load_official(model, before, SALMONN)
    after = official_state(model, SALMONN)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_difference_is_listed_and_nothing_is_loaded(model, official):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del official["ln_audio.bias"]
    official["speech_llama_proj.scale"] = torch.ones(3)
    official["speech_query_tokens"] = torch.ones(1, 2, 16)
    with pytest.raises(CheckpointError) as refusal:
        load_official(model, official, SALMONN, "salmonn_v1.pth")
    message = str(refusal.value)
    assert message.startswith("salmonn_v1.pth does not fit the recipe:")
    assert "missing in the file (1): ln_audio.bias" in message
    assert "left over in the file (1): speech_llama_proj.scale" in message
    assert (
        "speech_query_tokens is (1, 2, 16) in the file, the recipe's multi_modal_projector.queries is (1, 1, 16)"
        in (message)
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_part_that_the_system_has_not_is_refused(small_recipe, official):
    recipe = small_recipe("salmonn_13b")
    lora = recipe.language_model.lora.model_copy(update={"variant": "dora"})
    language_model = recipe.language_model.model_copy(update={"lora": lora})
    model, _ = build_model(recipe.model_copy(update={"language_model": language_model}), device="cpu")
    with pytest.raises(CheckpointError, match=r"lora_magnitude_vector.*no such tensor"):
        load_official(model, official, SALMONN)


def test_the_command_writes_a_run_that_loads(small_recipe, official, tmp_path):
    recipe = small_recipe("salmonn_13b")
    torch.save({"model": official, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "salmonn_v1.pth")
    arguments = ["convert", str(tmp_path / "small_salmonn_13b.yaml"), str(tmp_path / "salmonn_v1.pth")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    model, _, loaded = load_run(tmp_path / "run", device="cpu")
    assert loaded == recipe
    for name, value in official_state(model, SALMONN).items():
        assert torch.equal(value, official[name]), name
    with pytest.raises(CheckpointError, match="run: is there already"):
        convert_checkpoint(recipe, tmp_path / "salmonn_v1.pth", tmp_path / "run")


def test_a_refused_checkpoint_leaves_nothing_behind(small_recipe, official, tmp_path):
    recipe = small_recipe("salmonn_13b")
    del official["ln_speech.weight"]
    torch.save({"model": official}, tmp_path / "short.pth")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"short.pth does not fit the recipe:\n.*ln_speech\.weight"):
        convert_checkpoint(recipe, tmp_path / "short.pth", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


class Code:
    """Something that only an unpickler which runs code could read."""

    def __reduce__(self):
        return (print, ("read",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"model": {"weight": Code()}}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth: cannot be read as a checkpoint of tensors alone"):
        read_official(tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: holds no tensors by name"):
        read_official(tmp_path / "other.pth")


def test_a_recipe_without_released_weights_says_so(tiny_recipe, tmp_path):
    with pytest.raises(CheckpointError, match=r"official_weights is 'no'.*salmonn"):
        convert_checkpoint(tiny_recipe, tmp_path / "any.pth", tmp_path / "run")
