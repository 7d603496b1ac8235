"""Memory and time on machines that are not here: the arithmetic."""

from __future__ import annotations

import pytest

from lalm.errors import RecipeError
from lalm.model.machines import (
    GIB,
    USABLE,
    WAYS,
    MachinePlanner,
    bytes_held,
    parse_machine,
    seconds_of_pass,
)
from lalm.model.planned import BatchShape, StageMemory
from lalm.recipe.load import load_recipe

WAY = {way.name: way for way in WAYS}
SHAPE = BatchShape(rows=1, row_positions=1000, supervised=100, clips=10, clip_seconds=10.0)
STAGE = StageMemory("s", SHAPE, frozen_weights=14_000, trained_weights=400, largest_layer=500, gradients=400,
                    optimizer=800, activations=3_000, flops=10**15)  # fmt: skip


def test_a_machine_is_nodes_gpus_and_gibibytes():
    assert (parse_machine("1x24").nodes, parse_machine("1x24").gpus) == (1, 1)
    four = parse_machine("4x8x80")
    assert (four.nodes, four.gpus, four.gibibytes, four.num_processes) == (4, 8, 80, 32)
    assert str(four) == "4 nodes x 8 x 80 GB"
    for text in ("80", "8*80", "0x80", "1x2x3x80"):
        with pytest.raises(RecipeError, match=r"accepted are GPUSxGB and NODESxGPUSxGB"):
            parse_machine(text)
    with pytest.raises(RecipeError, match=r"no GPU of 48 GB is known. Known: 24 \(RTX 4090\)"):
        parse_machine("2x48")


def test_what_each_way_deals_out():
    assert bytes_held(STAGE, WAY["plain"], 8) == (14_400 + 400 + 800 + 3_000, 0)
    assert bytes_held(STAGE, WAY["ZeRO-2"], 8) == (14_400 + 50 + 100 + 3_000, 0)
    assert bytes_held(STAGE, WAY["ZeRO-3"], 8) == (1_800 + 50 + 100 + 3_000 + 2 * 500, 0)
    assert bytes_held(STAGE, WAY["ZeRO-3 offload"], 8) == (3_000 + 2 * 500, 1_800 + 50 + 100)


def test_time_is_operations_and_what_the_links_carry():
    one, eight, nodes = (parse_machine(text) for text in ("1x80", "8x80", "4x8x80"))
    computes = 10**15 / (312e12 * 0.4)
    assert seconds_of_pass(STAGE, WAY["plain"], one) == pytest.approx(computes)
    assert seconds_of_pass(STAGE, WAY["ZeRO-3"], one) == pytest.approx(computes)
    sent = 2 * 14_400 * 7 / 8 / 200e9
    assert seconds_of_pass(STAGE, WAY["ZeRO-3"], eight) - computes == pytest.approx(sent, rel=1e-3)
    assert seconds_of_pass(STAGE, WAY["ZeRO-3"], nodes) - computes == pytest.approx(
        2 * 14_400 * 31 / 32 / 25e9, rel=1e-3
    )


def test_a_recipe_on_a_machine():
    recipe = load_recipe("tiny")
    planner = MachinePlanner(recipe, live_encoder=False)
    assert planner.stage == "instruct"
    fits = planner.fits(parse_machine("8x80"))
    assert [(fit.way.name, fit.checkpointing) for fit in fits][::2] == [(way.name, False) for way in WAYS]
    plain, saving = fits[:2]
    assert saving.gpu_bytes < plain.gpu_bytes < USABLE * 80 * GIB
    assert saving.records_per_second < plain.records_per_second
    assert all(fit.fits for fit in fits)
    alone = {fit.way.name for fit in planner.fits(parse_machine("1x80"))}
    assert alone == {"plain", "QLoRA", "ZeRO-3 offload"}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_overrides_of_a_way_make_a_recipe(way):
    recipe = load_recipe("tiny", list(way.overrides))
    assert (recipe.deepspeed is not None) == way.splits_optimizer
    assert (recipe.language_model.quantisation == "nf4") == way.quantised
