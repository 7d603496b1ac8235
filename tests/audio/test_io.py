"""Every kind of file that people have is read or refused with its name and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lalm.audio.io import audio_hash, is_silent, load_audio, probe_audio, resample, save_audio
from lalm.errors import AudioError

RATE_HZ = 16000


def tone(seconds: float = 1.0, rate_hz: int = RATE_HZ, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def write_av(path: Path, codec: str, rate_hz: int, video: bool = False) -> Path:
    """A second of tone in a container that soundfile does not know."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            for packet in picture.encode(av.VideoFrame(32, 32, "yuv420p")):
                container.mux(packet)
            for packet in picture.encode(None):
                container.mux(packet)
            return path
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone(1.0, rate_hz)[None], format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def loudest_hz(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() * RATE_HZ / len(wave))


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channels(tmp_path, rate_hz, channels):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.repeat(tone(1.0, rate_hz)[:, None], channels, axis=1), rate_hz)
    wave = load_audio(path, RATE_HZ)
    assert (wave.shape, wave.dtype) == ((RATE_HZ,), np.float32)
    assert abs(loudest_hz(wave) - 440) <= 1
    np.testing.assert_allclose(wave[500:-500], tone()[500:-500], atol=5e-3)
    info = probe_audio(path)
    assert (info.seconds, info.sample_rate_hz, info.channels, info.format) == (1.0, rate_hz, channels, "WAV")


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_U8", 0.01),
        ("PCM_16", 1e-4),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-6),
        ("FLOAT", 0),
        ("DOUBLE", 1e-7),
        ("ULAW", 0.03),
    ],
)
def test_any_sample_format(tmp_path, subtype, tolerance):
    soundfile.write(tmp_path / "clip.wav", tone(), RATE_HZ, subtype=subtype)
    np.testing.assert_allclose(load_audio(tmp_path / "clip.wav", RATE_HZ), tone(), atol=tolerance)


@pytest.mark.parametrize("name", ["clip.flac", "clip.ogg", "clip.mp3", "clip.aiff", "clip.au"])
def test_formats_of_soundfile(tmp_path, name):
    soundfile.write(tmp_path / name, tone(), RATE_HZ)
    wave = load_audio(tmp_path / name, RATE_HZ)
    assert abs(len(wave) - RATE_HZ) < 1600
    assert abs(loudest_hz(wave) - 440) <= 1


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [("clip.m4a", "aac", 16000), ("clip.webm", "libopus", 48000), ("clip.mkv", "flac", 44100)],
)
def test_formats_of_ffmpeg(tmp_path, name, codec, rate_hz):
    if codec == "flac":
        pytest.importorskip("av")
        soundfile.write(tmp_path / "clip.flac", tone(1.0, rate_hz), rate_hz)
        remux(tmp_path / "clip.flac", tmp_path / name)
    else:
        write_av(tmp_path / name, codec, rate_hz)
    wave = load_audio(tmp_path / name, RATE_HZ)
    assert abs(len(wave) - RATE_HZ) < 2400
    assert abs(loudest_hz(wave) - 440) <= 1
    info = probe_audio(tmp_path / name)
    assert (info.sample_rate_hz, info.channels) == (rate_hz, 1)
    assert info.seconds == pytest.approx(1.0, abs=0.15)


def remux(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.audio[0])
        for packet in read.demux(read.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)


def test_the_content_decides_not_the_ending(tmp_path):
    soundfile.write(tmp_path / "clip.mp3", tone(), RATE_HZ)
    (tmp_path / "clip.mp3").rename(tmp_path / "clip.wav")
    assert abs(loudest_hz(load_audio(tmp_path / "clip.wav", RATE_HZ)) - 440) <= 1
    write_av(tmp_path / "clip.m4a", "aac", 16000).rename(tmp_path / "clip.flac")
    assert abs(loudest_hz(load_audio(tmp_path / "clip.flac", RATE_HZ)) - 440) <= 1


def test_stereo_is_mixed_down(tmp_path):
    left, right = tone(hz=300), tone(hz=1000)
    soundfile.write(tmp_path / "clip.wav", np.stack([left, right], axis=1), RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "clip.wav", RATE_HZ), (left + right) / 2, atol=1e-6)


def test_samples_beyond_full_scale_are_clipped(tmp_path):
    soundfile.write(tmp_path / "clip.wav", 4 * tone(), RATE_HZ, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "clip.wav", RATE_HZ)).max() == 1.0
    assert np.abs(load_audio(tmp_path / "clip.wav", 8000)).max() == 1.0


def test_a_silent_clip_is_read_and_told(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(RATE_HZ), RATE_HZ)
    wave = load_audio(tmp_path / "clip.wav", RATE_HZ)
    assert len(wave) == RATE_HZ
    assert is_silent(wave)
    assert is_silent(np.zeros(0, np.float32))
    assert not is_silent(0.001 * tone())


def broken(folder: Path, kind: str) -> Path:
    path = folder / "clip.wav"
    match kind:
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "no samples":
            soundfile.write(path, np.zeros(0), RATE_HZ)
        case "text":
            path.write_text("these are not samples\n" * 99)
        case "bytes":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "nan" | "infinite":
            wave = tone()
            wave[7] = {"nan": np.nan, "infinite": np.inf}[kind]
            soundfile.write(path, wave, RATE_HZ, subtype="FLOAT")
        case "picture":
            write_av(folder / "clip.mp4", "", 0, video=True).rename(path)
        case _:
            cut = folder / f"whole.{kind.split()[1]}"
            if cut.suffix == ".m4a":
                write_av(cut, "aac", RATE_HZ)
            else:
                soundfile.write(cut, tone(2.0), RATE_HZ)
            path.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * float(kind.split()[2]))])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"cannot be opened \(No such file or directory\)\. Check the path"),
        ("folder", "is a folder"),
        ("empty", r"is empty \(0 bytes\)"),
        ("no samples", "holds no samples"),
        ("text", "is not readable audio"),
        ("bytes", "is not readable audio"),
        ("nan", "not finite numbers"),
        ("infinite", "not finite numbers"),
        ("picture", "holds no audio stream"),
        ("truncated wav 0.5", "ends early, 32022 of 64000 bytes"),
        ("truncated wav 0.99", "ends early"),
        ("truncated wav 0.0007", "ends early|not readable"),
        ("truncated flac 0.5", "ends early|not readable"),
        ("truncated ogg 0.5", "ends early|not readable"),
        ("truncated mp3 0.5", "ends early|not readable"),
        ("truncated m4a 0.5", "ends early|not readable"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path, kind, message):
    path = broken(tmp_path, kind)
    with pytest.raises(AudioError, match=rf"clip\.wav: .*({message})"):
        load_audio(path, RATE_HZ)


def test_bytes_missing_in_the_middle_of_a_flac_are_seen(tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32000), RATE_HZ)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"clip\.flac: (ends early|is not readable)"):
        load_audio(path, RATE_HZ)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_streamed_wav_that_does_not_say_its_length_is_read(tmp_path, size):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(), RATE_HZ)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = size.to_bytes(4, "little")
    data[4:8] = (0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(load_audio(path, RATE_HZ)) == RATE_HZ


def test_a_wav_with_other_chunks_before_and_behind_the_samples(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(), RATE_HZ)
    data = path.read_bytes()
    head, rest = data[:12], data[12:]
    note = b"note" + (3).to_bytes(4, "little") + b"abc\0"
    path.write_bytes(head[:4] + (len(data) - 8 + 2 * len(note)).to_bytes(4, "little") + head[8:] + note + rest + note)
    np.testing.assert_allclose(load_audio(path, RATE_HZ), tone(), atol=1e-4)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 16000), (44100, 16000), (16000, 8000), (11025, 16000)])
@pytest.mark.parametrize("num_samples", [1, 2, 37, 1000, 11025])
def test_resampled_length_is_the_ceiling(from_hz, to_hz, num_samples):
    assert len(resample(tone(2, from_hz)[:num_samples], from_hz, to_hz)) == -(-num_samples * to_hz // from_hz)


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac"])
def test_saved_equals_loaded(tmp_path, name):
    save_audio(tmp_path / "deeper" / name, tone(), RATE_HZ)
    loaded = load_audio(tmp_path / "deeper" / name, RATE_HZ)
    np.testing.assert_allclose(loaded, tone(), atol=1 / 32767)
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == [name]


def test_saving_in_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"cannot write '\.xyz' files\. Accepted: \.wav, \.flac, \.ogg"):
        save_audio(tmp_path / "clip.xyz", tone(), RATE_HZ)
    assert not list(tmp_path.iterdir())


def test_the_hash_is_of_the_sound_not_of_the_file(tmp_path):
    samples = (tone() * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ)
    soundfile.write(tmp_path / "b.flac", samples, RATE_HZ)
    hashes = {audio_hash(load_audio(tmp_path / name, RATE_HZ)) for name in ("a.wav", "b.flac")}
    assert len(hashes) == 1
    assert audio_hash(tone()) != audio_hash(tone(hz=441))
    assert audio_hash(np.float32([2.0])) == audio_hash(np.float32([1.0]))


def test_reading_audio_imports_no_torch():
    code = "import sys, lalm.audio.io, lalm.audio.features; assert 'torch' not in sys.modules, 'torch is imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
