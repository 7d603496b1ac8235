"""Units: the nearest centre as numpy finds it, in any batch and precision; files of centres, and which are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lalm.encoders import build_encoder, encoder_fingerprint, load_encoder
from lalm.encoders.units import ROWS_AT_ONCE, UnitQuantiser, first_of_runs, read_centres, save_centres
from lalm.errors import ModelError
from lalm.processing.clips import features_of
from lalm.recipe.encoders import HubertSection, WavLMSection

COUNT, WIDTH = 24, 32
"""Centres, and the width of a random HuBERT."""
SECONDS = (0.31, 1.5, 0.8, 0.32)


def section(centres=None, kind=HubertSection, **options):
    units = {"centres": centres and str(centres), "count": COUNT, **options}
    return kind(base="random", chunk_seconds=1.5, layers=(1,), units=units)


def build(options):
    torch.manual_seed(0)
    return load_encoder(options)


def wave(seconds, seed):
    return np.random.default_rng(seed).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


def inputs(encoder, clips):
    audio = features_of([encoder.front_end], clips, 16000)
    return audio["input_features"][0], audio["feature_lengths"][0]


@pytest.fixture
def centres(tmp_path):
    """States of noise as centres, so that clips have many units."""
    plain = build(HubertSection(base="random", chunk_seconds=1.5, layers=(1,)))
    with torch.no_grad():
        states = plain(*inputs(plain, [wave(1.4, 99)])).states[0].numpy()
    path = tmp_path / "centres.safetensors"
    save_centres(path, states[:: len(states) // COUNT][:COUNT])
    return path


def by_hand(states, centres):
    """`[T]`: the nearest centre of each state, by the distances themselves in float64."""
    distances = ((states.astype(np.float64)[:, None] - centres.astype(np.float64)[None]) ** 2).sum(axis=2)
    return distances.argmin(axis=1)


@torch.no_grad()
def test_units_are_the_nearest_centres_as_numpy_finds_them(centres):
    encoder, plain = build(section(centres)), build(HubertSection(base="random", chunk_seconds=1.5, layers=(1,)))
    clips = [wave(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    units, states = encoder(*inputs(encoder, clips)), plain(*inputs(plain, clips))
    assert units.num_steps.tolist() == states.num_steps.tolist()
    assert (units.states.dtype, units.states.shape[2], encoder.width) == (torch.int32, 1, 1)
    seen = set()
    for found, clip, steps in zip(units.states, states.states, states.num_steps.tolist(), strict=True):
        expected = by_hand(clip[:steps].numpy(), read_centres(centres))
        assert found[:steps, 0].tolist() == expected.tolist()
        assert not found[steps:].any()
        seen |= set(expected)
    assert len(seen) > COUNT // 2


@torch.no_grad()
def test_no_unit_depends_on_the_batch_or_the_padding(centres):
    encoder = build(section(centres))
    clips = [wave(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    features, lengths = inputs(encoder, clips)
    noise = 10 * torch.randn(*features.shape[:2], features.shape[2] + 999)
    for row, clip, length in zip(noise, features, lengths.tolist(), strict=True):
        row[:, :length] = clip[:, :length]
    together = encoder(noise, lengths)
    for number, clip in enumerate(clips):
        alone = encoder(*inputs(encoder, [clip]))
        steps = int(alone.num_steps[0])
        assert int(together.num_steps[number]) == steps
        assert torch.equal(together.states[number, :steps], alone.states[0])


def test_many_states_are_the_same_as_few():
    torch.manual_seed(0)
    quantiser = UnitQuantiser(torch.randn(5, 4), drops_repeats=True)
    states = torch.randn(2, ROWS_AT_ONCE, 4)
    assert torch.equal(quantiser(states)[1, :50], quantiser(states[1, :50]))
    assert quantiser(states).shape == (2, ROWS_AT_ONCE, 1)


def test_of_equal_neighbours_the_first_stays():
    units = torch.tensor([4, 4, 1, 4, 4, 4, 0])[:, None]
    assert units[first_of_runs(units)][:, 0].tolist() == [4, 1, 4, 0]
    assert first_of_runs(units[:0]).tolist() == []


def test_casting_the_encoder_leaves_the_centres_exact(centres):
    expected = read_centres(centres)
    torch.manual_seed(0)
    encoder = load_encoder(section(centres), torch.bfloat16)
    assert next(encoder.model.parameters()).dtype == torch.bfloat16
    assert np.array_equal(encoder.quantiser.centres.numpy(), expected)
    assert np.array_equal(encoder.half().quantiser.centres.numpy(), expected)


def test_a_file_under_any_name_and_kind_holds_the_same_centres(tmp_path):
    made = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    save_centres(tmp_path / "a.safetensors", made)
    np.savez(tmp_path / "b.npz", anything=made.astype(np.float64))
    np.savez(tmp_path / "c.npz", centres=made, counts=np.ones(6))
    for name in ("a.safetensors", "b.npz", "c.npz"):
        assert np.array_equal(read_centres(tmp_path / name), made), name


def test_the_fingerprint_follows_the_centres_and_not_their_place(tmp_path, centres):
    moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    moved.write_bytes(centres.read_bytes())
    save_centres(other, read_centres(centres) + 1)
    own = encoder_fingerprint(section(centres))
    assert encoder_fingerprint(section(moved)) == own
    assert encoder_fingerprint(section(other)) != own
    assert encoder_fingerprint(section(centres, drop_repeats=False)) != own
    assert encoder_fingerprint(section(centres, kind=WavLMSection)) != own


def test_an_encoder_without_units_keeps_its_fingerprint():
    """Runs and caches from before there were units stay good: the key is not even in what is hashed."""
    import hashlib

    plain = HubertSection(base="random")
    options = plain.model_dump_json(exclude={"base", "units"}).encode()
    assert encoder_fingerprint(plain) == hashlib.sha256(b":".join((b"random", options, b""))).hexdigest()


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "km.bin").write_bytes(b"not opened")
    with pytest.raises(
        ModelError, match=r"(?s)km.bin.*are pickles.*numpy.savez\('km.npz', centres=joblib.load\('km.bin'\)"
    ):
        read_centres(tmp_path / "km.bin")


def test_an_array_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "km.npz", centres=np.array([[1, None]], dtype=object))
    with pytest.raises(ModelError, match=r"km.npz: cannot be read.*allow_pickle"):
        read_centres(tmp_path / "km.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones((3, 2)), "b": np.ones((3, 2))}, r"holds \{'a': \[3, 2\], 'b': \[3, 2\]\}; one array"),
        ({"centres": np.ones(3)}, r"one array \[centres, width\] is wanted"),
        ({"centres": np.full((3, 2), np.nan)}, "values that are no numbers"),
    ],
)
def test_what_holds_no_centres_is_refused(tmp_path, arrays, message):
    save_file(arrays, tmp_path / "km.safetensors")
    with pytest.raises(ModelError, match=message):
        read_centres(tmp_path / "km.safetensors")


def test_missing_damaged_and_wrongly_named_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"none.npz: no such file. Fit one with: lalm units fit RECIPE"):
        read_centres(tmp_path / "none.npz")
    for name in ("half.npz", "half.safetensors"):
        (tmp_path / name).write_bytes(b"half a file")
        with pytest.raises(ModelError, match=f"{name}: cannot be read"):
            read_centres(tmp_path / name)
    with pytest.raises(ModelError, match=r"out.npz: centres are written as .safetensors"):
        save_centres(tmp_path / "out.npz", np.ones((3, 2)))


def test_centres_of_another_number_or_width_are_refused(tmp_path):
    save_centres(tmp_path / "km.safetensors", np.ones((COUNT, WIDTH + 1)))
    with pytest.raises(ModelError, match=f"{COUNT} centres of width 33; encoders.units.count is {COUNT}.* 32 wide"):
        load_encoder(section(tmp_path / "km.safetensors"))
    save_centres(tmp_path / "few.safetensors", np.ones((3, WIDTH)))
    with pytest.raises(ModelError, match="holds 3 centres of width 32"):
        load_encoder(section(tmp_path / "few.safetensors"))


def test_a_named_base_without_centres_is_refused(tmp_path):
    plain = build(HubertSection(base="random"))
    plain.model.save_pretrained(tmp_path)
    options = HubertSection(base=str(tmp_path), normalised=False, units={"count": COUNT})
    with pytest.raises(ModelError, match=r"centres: no file is given.*lalm units fit RECIPE"):
        load_encoder(options)
    with torch.device("meta"):  # its sizes are known all the same
        assert build_encoder(options).num_units == COUNT
