"""The SoundFont reader against a file written here: a looped sine whose pitch and loudness must come out right."""

import struct

import numpy as np
import pytest

from data_builders.clips import SAMPLE_RATE_HZ, seeded
from data_builders.sources.soundfont import RENDER_RATE_HZ, Phrase, SoundFont, plan_phrase, render_phrase
from lalm.errors import DataError

PERIOD = 100
SAMPLE_RATE = 44_000
"""The sample is a sine of 440 Hz, ten periods long, with key 69 as its own pitch."""


def chunk(name: str, data: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def soundfont_bytes(attenuation: int = 0, low: int = 0, high: int = 127) -> bytes:
    wave = (np.sin(np.arange(10 * PERIOD) * 2 * np.pi / PERIOD) * 20_000).astype("<i2").tobytes()
    key_range = low | high << 8
    tables = {
        "phdr": struct.pack("<20sHHHIII", b"Sine", 5, 0, 0, 0, 0, 0)
        + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0),
        "pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        "pgen": struct.pack("<Hh", 41, 0),
        "inst": struct.pack("<20sH", b"Sine", 0) + struct.pack("<20sH", b"EOI", 2),
        "ibag": struct.pack("<HHHHHH", 0, 0, 1, 0, 4, 0),
        "igen": struct.pack("<HhHHHhHh", 48, attenuation, 43, key_range, 54, 1, 53, 0),
        "shdr": struct.pack("<20sIIIIIBbHH", b"Sine", 0, 10 * PERIOD, 0, 9 * PERIOD, SAMPLE_RATE, 69, 0, 0, 1)
        + struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    body = b"sfbk" + chunk("LIST", b"sdta" + chunk("smpl", wave))
    body += chunk("LIST", b"pdta" + b"".join(chunk(name, data) for name, data in tables.items()))
    return chunk("RIFF", body)


@pytest.fixture
def font(tmp_path):
    path = tmp_path / "tiny.sf2"
    path.write_bytes(soundfont_bytes())
    return SoundFont(path)


def loudest_frequency(wave: np.ndarray, rate: int) -> float:
    return float(np.fft.rfftfreq(len(wave), 1 / rate)[np.abs(np.fft.rfft(wave)).argmax()])


@pytest.mark.parametrize(("key", "frequency"), [(69, 440.0), (81, 880.0), (57, 220.0), (76, 659.26)])
def test_a_key_has_its_pitch_and_the_loop_carries_on(font, key, frequency):
    wave = font.note(5, key, 127, held_seconds=1.0, release_seconds=0.0)
    assert len(wave) == RENDER_RATE_HZ
    assert loudest_frequency(wave, RENDER_RATE_HZ) == pytest.approx(frequency, abs=1.5)
    assert np.abs(wave[-4000:-2000]).max() > 0.4


def test_a_note_that_is_let_go_fades(font):
    wave = font.note(5, 69, 127, held_seconds=0.5, release_seconds=0.5)
    assert np.abs(wave[-1000:]).max() < 0.01 < 0.4 < np.abs(wave[: RENDER_RATE_HZ // 4]).max()


def test_a_global_zone_and_a_key_range_count(tmp_path):
    path = tmp_path / "quiet.sf2"
    path.write_bytes(soundfont_bytes(attenuation=200, low=60, high=72))
    font = SoundFont(path)
    plain = 20_000 / 32_768
    assert np.abs(font.note(5, 69, 127, 0.5, 0.0)).max() == pytest.approx(plain * 10 ** (-200 * 0.4 / 200), rel=0.05)
    assert not font.note(5, 40, 127, 0.5, 0.0).any()


def test_an_absent_program_is_named(font):
    with pytest.raises(DataError, match=r"program 9.*\[5\]"):
        font.note(9, 69, 100, 0.5, 0.0)


@pytest.mark.parametrize("content", [b"RIFF\0\0\0\0WAVE", b"", soundfont_bytes()[:2200]])
def test_what_is_no_soundfont_is_named(tmp_path, content):
    (tmp_path / "broken.sf2").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.sf2"):
        SoundFont(tmp_path / "broken.sf2")


def test_a_phrase_is_as_long_as_planned_and_as_loud_as_stated(tmp_path):
    path = tmp_path / "tiny.sf2"
    path.write_bytes(soundfont_bytes())
    phrase = plan_phrase(5, (48, 84), seeded(1, "phrase"))
    assert phrase == plan_phrase(5, (48, 84), seeded(1, "phrase"))
    wave = render_phrase(path, phrase)
    assert len(wave) / SAMPLE_RATE_HZ == pytest.approx(phrase.seconds, abs=0.01)
    assert np.abs(wave).max() == pytest.approx(0.7, abs=0.01)
    one = render_phrase(path, Phrase(5, (81,), (100,), 1.0))
    assert loudest_frequency(one, SAMPLE_RATE_HZ) == pytest.approx(880, abs=2)
