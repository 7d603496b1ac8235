"""The recipes of published systems: what each says of itself, and where its values are from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lalm.errors import RecipeError
from lalm.recipe.load import find_recipe, load_recipe
from lalm.resources import list_shipped

RECIPES = [Path(file).stem for file in list_shipped("recipes")]
SYSTEMS = [name for name in RECIPES if load_recipe(name).system is not None]
PUBLISHED = [name for name in SYSTEMS if load_recipe(name).system.paper != "none"]
SOURCED = re.compile(
    r"^\s*(- )?(base|layers|preset|template|lora|learning_rates|steps|epochs|batch_records|schedule|warmup_steps|"
    r"min_lr_share|max_audio_seconds|sources|in_context|answers|lora_scale|train_on_inputs|num_beams): "
)
"""Keys whose values come from a paper or its code, or are guessed."""
SCHEME = ("pengi", "ltu", "ltu_as", "salmonn_7b", "salmonn_13b", "qwen_audio", "qwen2_audio", "audio_flamingo",
          "audio_flamingo3", "gama", "speechgpt", "salm", "blsp", "speechverse", "cosmic", "musilingo", "llark",
          "whisper_large_v3_qwen2_5_0_5b", "whisper_large_v3_qwen2_5_7b", "whisper_small_smollm2_360m")  # fmt: skip


def test_every_system_of_the_scheme_has_a_recipe():
    assert set(SYSTEMS) == set(SCHEME)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_says_where_it_is_from(name):
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    body = lines[lines.index("encoders:") if "encoders:" in lines else lines.index("language_model:") :]
    silent = [
        line
        for number, line in enumerate(body)
        if SOURCED.match(line)
        and not re.search(r"#.*\((code|paper|guess)\)", line + (body[number + 1] if line.endswith(",") else ""))
    ]
    assert not silent


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_file_opens_with_command_paper_and_differences(name):
    text = find_recipe(name).read_text(encoding="utf-8")
    system = load_recipe(name).system
    head = text[: text.index("\nname:")]
    assert head.startswith(f"# lalm train recipes/{name}.yaml data.folder=FOLDER\n")
    assert system.paper.removeprefix("arXiv ") in head
    assert re.fullmatch(r"arXiv \d{4}\.\d{4,5}", system.paper)
    assert system.differences
    assert str(load_recipe(name).data.folder).startswith("data/")


def test_a_size_that_belongs_to_no_stage_is_refused():
    sizes = "system.sizes=[{of: trained, stage: zzz, value: 1, source: here}]"
    with pytest.raises(RecipeError, match=r"system.sizes\[0\].stage: 'zzz' is no stage \(pretrain, instruct, activate"):
        load_recipe("salmonn_7b", [sizes])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("{of: positions, value: 1, source: here}", "seconds: give it with 'of: positions', and only there"),
        ("{of: all, value: 1, source: here, seconds: 3}", "seconds: give it with 'of: positions', and only there"),
        ("{of: encoder, value: 1, source: here, stage: pretrain}", "stage: only 'of: trained' counts"),
    ],
)
def test_a_size_of_another_kind_is_refused(size, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("salmonn_7b", [f"system.sizes=[{size}]"])
