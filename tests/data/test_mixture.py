"""Plans: deterministic, the same records whatever the number of processes, every record once an epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_plan import draws

from lalm.data.mixture import plan_stage
from lalm.errors import DataError

LENGTHS = np.random.default_rng(0).integers(20, 90, 96).tolist()
SOURCES = ["a"] * 60 + ["b"] * 36
GROUPS = [number // 6 for number in range(96)]


def plan(**changes):
    settings = {"batch_records": 16, "micro_batch_tokens": 400, "epochs": 2, "seed": 7}
    weights = changes.pop("weights", {"a": 1.0, "b": 1.0})
    return plan_stage(LENGTHS, SOURCES, weights, **settings | changes)


def shared(**changes):
    return plan(groups=GROUPS, prefix_lengths=[15] * 96, **changes)


@pytest.mark.parametrize("make", [plan, shared])
def test_every_record_once_an_epoch(make):
    result = make(epochs=3)
    assert result.num_steps == 18
    for epoch in range(3):
        drawn = np.concatenate([result.step_records(step) for step in range(epoch * 6, epoch * 6 + 6)])
        assert sorted(drawn) == list(range(96))


def test_epochs_differ_and_seeds_differ():
    result = plan()
    assert result.order[:96].tolist() != result.order[96:].tolist()
    assert plan(seed=8).order.tolist() != result.order.tolist()


@pytest.mark.parametrize("make", [plan, shared])
def test_plan_is_the_same_every_time_and_longer_plans_begin_alike(make):
    assert make().digest == make().digest
    short, long = make(epochs=None, steps=4), make(epochs=None, steps=9)
    for step in range(4):
        assert sorted(short.step_records(step)) == sorted(long.step_records(step))


@pytest.mark.parametrize("make", [plan, shared])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_records_of_a_step_do_not_depend_on_processes_or_memory(make, world_size):
    one = make()
    other = make(world_size=world_size, micro_batch_tokens=200)
    assert other.gradient_accumulation_steps * world_size * other.num_steps == len(other)
    for step in range(one.num_steps):
        assert sorted(one.step_records(step)) == sorted(other.step_records(step))


def test_micro_batches_fit_and_accumulation_is_the_least():
    result = plan(micro_batch_tokens=400)
    tokens = [sum(LENGTHS[i] for i in result[item]) for item in range(len(result))]
    assert max(tokens) == result.max_micro_batch_tokens <= 400
    assert result.gradient_accumulation_steps > 1
    per_step = [sum(LENGTHS[i] for i in result.step_records(step)) for step in range(result.num_steps)]
    assert (result.gradient_accumulation_steps - 1) * 400 < max(per_step) * 1.1
    assert min(tokens) > 0.6 * max(tokens)


def test_order_is_by_step_then_accumulation_then_process():
    result = plan(world_size=2, micro_batch_tokens=300)
    per_step = result.gradient_accumulation_steps * 2
    for step in range(result.num_steps):
        items = range(step * per_step, (step + 1) * per_step)
        assert sorted(np.concatenate([result[item] for item in items])) == sorted(result.step_records(step))
    tokens = np.array([sum(LENGTHS[i] for i in result[item]) for item in range(len(result))]).reshape(-1, 2)
    assert (abs(tokens[:, 0] - tokens[:, 1]) < 90).mean() > 0.9


def test_questions_of_a_clip_are_drawn_together_up_to_the_cap():
    together = shared(epochs=1, questions_per_clip=3)
    pairs = 0
    for step in range(together.num_steps):
        _, counts = np.unique([GROUPS[i] for i in together.step_records(step)], return_counts=True)
        pairs += (counts > 1).sum()
    assert pairs > 20
    assert shared(micro_batch_tokens=400).max_micro_batch_tokens <= 400


def test_shared_prefixes_make_room():
    assert (
        shared(micro_batch_tokens=450).gradient_accumulation_steps
        <= plan(micro_batch_tokens=450).gradient_accumulation_steps
    )


def test_padded_rows_cost_their_longest():
    result = plan(padded_rows=True, micro_batch_tokens=300)
    for item in range(len(result)):
        assert len(result[item]) * max(LENGTHS[i] for i in result[item]) <= 300


def test_weights_change_how_often_records_are_seen():
    result = plan(weights={"a": 1.0, "b": 2.5}, epochs=2, batch_records=15)
    assert result.draws_per_epoch == 150
    seen = np.bincount(result.order, minlength=96)
    assert set(seen[:60]) == {2}
    assert set(seen[60:]) == {5}


def test_a_tiny_set_fills_whole_steps():
    result = plan_stage([10, 12], ["a", "a"], {}, batch_records=4, micro_batch_tokens=64, epochs=1, seed=0)
    assert result.num_steps == 1
    assert sorted(result.order) == [0, 0, 1, 1]


def test_refusals():
    with pytest.raises(DataError, match=r"record 'long' has 500 positions, more than micro_batch_tokens = 400"):
        plan_stage([5, 500], ["a", "a"], {}, batch_records=2, micro_batch_tokens=400, steps=1, seed=0,
                   names=["short", "long"])  # fmt: skip
    with pytest.raises(DataError, match="no records are left"):
        plan_stage([], [], {}, batch_records=2, micro_batch_tokens=400, steps=1, seed=0)
    with pytest.raises(DataError, match=r"batch_records = 16 is less than the 32 processes"):
        plan(world_size=32)
    with pytest.raises(DataError, match="multiple of 5"):
        plan_stage([50] * 16, ["a"] * 16, {}, batch_records=16, micro_batch_tokens=60, steps=1, seed=0, world_size=5)


def test_a_budget_of_records_is_rounded_up_to_steps():
    assert plan(epochs=None, records=40).num_steps == 3
    assert plan(epochs=None, records=48).num_steps == 3
    assert plan(epochs=None, records=1).num_steps == 1


@pytest.mark.parametrize("wanted", [0.5, 300.0, 1234.5])
def test_a_budget_of_audio_takes_the_fewest_steps_that_hold_it(wanted):
    seconds = [0.5 + 0.25 * (number % 40) for number in range(96)]
    result = plan(epochs=None, audio_seconds=wanted, seconds=seconds)
    per_step = [sum(seconds[i] for i in result.step_records(step)) for step in range(result.num_steps)]
    assert sum(per_step) >= wanted
    assert sum(per_step[:-1]) < wanted


def test_a_budget_of_audio_without_audio_is_refused():
    with pytest.raises(DataError, match="audio_hours: no record of the stage has audio"):
        plan(epochs=None, audio_seconds=5.0, seconds=[0.0] * 96)


def test_exactly_one_budget():
    with pytest.raises(ValueError, match="exactly one of steps, epochs, records and audio_seconds"):
        plan(records=3)


@pytest.mark.parametrize(("temperature", "weights"), [(1.0, (1, 1)), (2.0, (1, 1)), (5.0, (1, 4)), (0.5, (1, 2))])
def test_temperature_raises_shares_to_its_inverse(temperature, weights):
    result = plan(epochs=50, temperature=temperature, weights=dict(zip("ab", weights, strict=True)))
    drawn = np.array([sum(SOURCES[i] == name for i in result.order) for name in "ab"], dtype=float)
    powers = np.array([60 * weights[0], 36 * weights[1]]) ** (1 / temperature)
    np.testing.assert_allclose(drawn / drawn.sum(), powers / powers.sum(), atol=0.005)


def test_a_source_above_weight_1_is_repeated_in_an_epoch():
    result = plan(epochs=1, weights={"a": 1.0, "b": 3.0}, batch_records=12)
    counts = np.bincount(result.order, minlength=96)
    assert set(counts[:60]) == {1}
    assert set(counts[60:]) == {3}


@settings(max_examples=60, deadline=None)
@given(
    sources=st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    clips=st.integers(1, 12),
    weights=st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.1, 0.5, 1.0, 2.5])),
    temperature=st.sampled_from([1.0, 1.0, 2.0]),
    cap=st.integers(1, 5),
    seed=st.integers(0, 99),
    steps=st.integers(1, 30),
    grouped=st.booleans(),
)
def test_draws_are_those_of_the_plain_lists(sources, clips, weights, temperature, cap, seed, steps, grouped):
    groups = [int(number) for number in np.random.default_rng(seed).integers(0, clips, len(sources))]
    result = plan_stage(
        [9] * len(sources), sources, weights, batch_records=4, micro_batch_tokens=36, steps=steps, seed=seed,
        temperature=temperature, groups=groups if grouped else None, prefix_lengths=[0] * len(sources),
        questions_per_clip=cap,
    )  # fmt: skip
    shared = groups if grouped and cap > 1 else None
    wanted = draws(sources, weights, shared, cap, seed, temperature, steps * 4)
    for step in range(steps):
        assert sorted(result.step_records(step)) == sorted(wanted[4 * step : 4 * step + 4])


def test_sources_may_be_given_as_their_members():
    members = {"b": np.arange(60, 96, dtype=np.int32), "a": np.arange(60, dtype=np.int32), "empty": np.zeros(0, int)}
    settings = {"batch_records": 16, "micro_batch_tokens": 400, "epochs": 2, "seed": 7}
    assert plan_stage(np.array(LENGTHS), members, {}, **settings).digest == plan().digest


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        ({}, "c291d3ffffa3528b"),
        ({"world_size": 2, "weights": {"a": 0.5, "b": 3.0}, "epochs": 5}, "3a488dd35f2eb531"),
        ({"groups": GROUPS, "prefix_lengths": [15] * 96, "temperature": 2.0, "epochs": 3}, "b40b1b7b5eb5b696"),
        ({"padded_rows": True, "micro_batch_tokens": 300}, "8aa532dadd0974a6"),
    ],
)
def test_plans_stay_what_they_were(changes, digest):
    """A changed digest means that runs which were begun before cannot go on. Computed by commit fbf028c."""
    assert plan(**changes).digest[:16] == digest
