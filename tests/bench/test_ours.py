"""Our side: each switch removes the work that it says, and leaves the loss as it is."""

from __future__ import annotations

import os

import pytest

from lalm.bench.parts import PARTS

pytestmark = pytest.mark.slow

EXACT = ("state_cache", "shared_prefix", "supervised_only")


def losses(pieces) -> list[float]:
    return [piece["loss"] for piece in pieces[1:]]


def test_a_run_is_a_preparation_and_the_steps_of_two_epochs(run_tiny):
    prepared, *steps = run_tiny()
    assert prepared["kind"] == "prepare"
    assert [step["kind"] for step in steps] == ["step", "step"]
    assert [step["records"] for step in steps] == [6, 6]
    assert prepared["num_records"] == 6
    # With all switches on, rows are padded a little to one another, and the head sees supervised positions alone.
    positions = steps[0]["work"]["decoder_positions"]
    assert prepared["useful_tokens"] <= positions < 1.25 * prepared["useful_tokens"]
    assert steps[0]["work"]["logit_rows"] == prepared["supervised_tokens"]


def test_time_is_told_by_part(run_tiny):
    prepared, first, _ = run_tiny()
    assert {"decode", "features", "encoder"} <= prepared["parts"].keys()
    assert set(first["parts"]) == set(PARTS) - {"decode", "features", "encoder"}
    assert all(seconds > 0 for seconds in first["parts"].values())
    assert sum(first["parts"].values()) <= first["seconds"]
    without_cache = run_tiny(state_cache=False)
    assert set(without_cache[1]["parts"]) == set(PARTS)
    assert sum(without_cache[1]["parts"].values()) <= without_cache[1]["seconds"]


@pytest.mark.parametrize("switch", EXACT)
def test_the_loss_stays(run_tiny, switch: str):
    assert losses(run_tiny(**{switch: False})) == pytest.approx(losses(run_tiny()), rel=1e-5)


def test_without_the_cache_every_epoch_encodes(run_tiny):
    with_cache, without = run_tiny(), run_tiny(state_cache=False)
    assert [piece["work"].get("encoder_calls", 0) for piece in with_cache] == [1, 0, 0]
    assert [piece["work"].get("encoder_calls", 0) for piece in without] == [0, 1, 1]
    assert without[1]["work"]["encoder_steps"] == with_cache[0]["work"]["encoder_steps"]


def test_without_real_lengths_the_encoder_sees_thirty_seconds(run_tiny):
    real, full = run_tiny()[0], run_tiny(real_lengths=False)[0]
    assert full["work"]["encoder_steps"] == 3 * 1500
    assert real["work"]["encoder_steps"] < 3 * 100
    # Whisper attends to the silence behind a clip, so this switch keeps the loss about, not exactly.
    assert losses(run_tiny(real_lengths=False)) == pytest.approx(losses(run_tiny()), rel=0.05)


def test_without_sharing_every_question_brings_its_clip(run_tiny):
    shared, alone = run_tiny()[1]["work"], run_tiny(shared_prefix=False)[1]["work"]
    assert alone["decoder_positions"] > shared["decoder_positions"]
    assert alone["decoder_positions"] % 6 == 0


def test_without_supervised_only_there_are_logits_everywhere(run_tiny):
    work = run_tiny(supervised_only=False)[1]["work"]
    assert work["logit_rows"] == work["decoder_positions"] == run_tiny()[1]["work"]["decoder_positions"]


def test_both_encoders_run(run_tiny):
    one, two = run_tiny()[0], run_tiny(second_encoder=True)[0]
    assert two["work"]["encoder_steps"] > 1.5 * one["work"]["encoder_steps"]
    assert two["encoder_flops"] > one["encoder_flops"]


def test_audio_positions_are_those_of_the_peer(run_tiny):
    tokens = {
        audio: run_tiny(audio=audio)[0]["useful_tokens"] for audio in ("salmonn", "granite_speech", "qwen2_audio")
    }
    assert tokens["salmonn"] < tokens["granite_speech"] < tokens["qwen2_audio"]


def test_the_cache_folder_of_the_user_is_left_alone(run_tiny, own_cache):
    run_tiny()
    assert os.environ["LALM_CACHE"] == str(own_cache)
    assert not (own_cache / "states").exists()
