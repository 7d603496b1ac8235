"""Recording through a stand-in for sounddevice; what is said where there is none, or no microphone."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lalm.errors import AudioError, MissingPackageError
from lalm.serving import microphone


class PortAudioError(Exception):
    pass


def stand_in(query=lambda kind: {}):
    def rec(num_samples, samplerate, channels, dtype):
        return np.full((num_samples, channels), 0.25, dtype)

    return SimpleNamespace(PortAudioError=PortAudioError, query_devices=query, rec=rec, wait=lambda: None)


def test_records_one_float32_channel(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", stand_in())
    samples = microphone.record(0.5, 16000)
    assert (samples.shape, samples.dtype) == ((8000,), np.float32)


def test_no_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingPackageError, match=r"needs the package 'sounddevice'.*lalm\[serve\]"):
        microphone.record(1, 16000)


@pytest.mark.parametrize("error", [PortAudioError("Error querying device -1"), ValueError("no input device")])
def test_no_microphone_says_what_to_do(monkeypatch, error):
    def query(kind):
        raise error

    monkeypatch.setitem(sys.modules, "sounddevice", stand_in(query))
    with pytest.raises(AudioError, match=r"no microphone can be opened here \(.*device.*Use /audio FILE"):
        microphone.record(1, 16000)


@pytest.mark.parametrize("seconds", [0, -1, 1e6, float("nan")])
def test_refuses_lengths_that_make_no_sense(seconds):
    with pytest.raises(AudioError, match="cannot record"):
        microphone.record(seconds, 16000)
