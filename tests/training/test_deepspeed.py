"""DeepSpeed settings: the recipe's block is merged last."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lalm.errors import CheckpointError, MissingPackageError
from lalm.training.deepspeed import deepspeed_settings, load_engine, merged


def test_nothing_without_a_block():
    assert deepspeed_settings(SimpleNamespace(deepspeed=None)) is None


def test_the_block_wins():
    pytest.importorskip("deepspeed")
    block = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}, "wall_clock_breakdown": True}
    settings = deepspeed_settings(SimpleNamespace(deepspeed=block))
    assert settings["zero_optimization"]["stage"] == 3
    assert settings["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert settings["zero_optimization"]["overlap_comm"] is False
    assert settings["wall_clock_breakdown"] is True
    assert deepspeed_settings(SimpleNamespace(deepspeed={}))["zero_optimization"]["stage"] == 2


def test_merging_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 5}, "d": {"e": 1}}) == {"a": {"b": 5, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install 'lalm\\[distributed\\]'"):
        deepspeed_settings(SimpleNamespace(deepspeed={}))


def test_a_checkpoint_that_the_engine_cannot_read_is_refused():
    def broken(path, load_module_strict):
        raise AssertionError("expected 2 shards, found 1")

    with pytest.raises(CheckpointError, match=r"ck: DeepSpeed cannot restore it \(expected 2 shards, found 1\)"):
        load_engine(SimpleNamespace(load_checkpoint=broken), "ck")
    with pytest.raises(CheckpointError, match="ck: holds no DeepSpeed state"):
        load_engine(SimpleNamespace(load_checkpoint=lambda path, load_module_strict: (None, {})), "ck")
