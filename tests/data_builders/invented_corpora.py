"""Invented packages and clips: `.deb` files written byte by byte, recordings made of tones."""

from __future__ import annotations

import gzip
import io
import tarfile
import wave
from functools import partial
from pathlib import Path

import numpy as np

from data_builders.clips import LANGUAGES, SAMPLE_RATE_HZ, Clip
from data_builders.debs import Fetched
from data_builders.questions import FAMILIES
from data_builders.recipe import DataRecipe

WORDS = ("press", "open", "close", "line", "call", "message", "folder", "number", "again", "hold", "later", "listen")


def tar_bytes(files: dict[str, bytes], mode: str = "w:xz", extra: list[tarfile.TarInfo] | None = None) -> bytes:
    """A tar of regular files, then of whatever else is given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
        for item in extra or []:
            tar.addfile(item)
    return out.getvalue()


def ar_bytes(members: dict[str, bytes]) -> bytes:
    """An `ar` archive: 60-byte headers, members padded to even lengths."""
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def write_deb(path: Path, data: bytes, data_name: str = "data.tar.xz") -> Path:
    """A `.deb` whose data member is `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ar_bytes({"debian-binary": b"2.0\n", "control.tar.xz": b"odd", data_name: data}))
    return path


def wav_bytes(seconds: float, rate: int = 8000, frequency: float = 440.0) -> bytes:
    """A 16-bit mono WAV of one tone; no samples for zero seconds."""
    out = io.BytesIO()
    tone = np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * frequency / rate)
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((tone * 12_000).astype("<i2").tobytes())
    return out.getvalue()


def prompts_package(
    folder: Path, code: str, voice: str, rows: dict[str, str], sounds: dict[str, bytes]
) -> dict[str, Fetched]:
    """The two opened packages of one language, in the layout of the Asterisk prompts."""
    doc = f"usr/share/doc/asterisk-core-sounds-{code}/core-sounds-{code}.txt.gz"
    text = "; Core sounds\n\n" + "".join(f"{key}: {text}\n" for key, text in rows.items())
    members = {doc: gzip.compress(text.encode("utf-8-sig" if code == "it" else "utf-8"))}
    texts = _opened(folder, f"asterisk-core-sounds-{code}", members)
    files = {f"usr/share/asterisk/sounds/{voice}/{key}.wav": content for key, content in sounds.items()}
    return texts | _opened(folder, f"asterisk-core-sounds-{code}-wav", files)


def _opened(folder: Path, name: str, members: dict[str, bytes]) -> dict[str, Fetched]:
    for member, content in members.items():
        (folder / name / member).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / member).write_bytes(content)
    return {name: Fetched(name, "1.0", "0" * 64, folder / name, tuple(sorted(members)))}


def tone(frequency: float, seconds: float) -> np.ndarray:
    """[S] float32 at SAMPLE_RATE_HZ."""
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def invented_clips(num_prompts: int = 30) -> list[Clip]:
    """Five languages of prompts and digits, six sounds of four recordings, three instruments of three presets."""
    clips = []
    for place, language in enumerate(LANGUAGES):
        for number in range(num_prompts):
            words = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5)]
            text = " ".join([*words, f"{language[:3].lower()}{number}"])
            name = f"p-{language[:2]}-{number:02d}"
            clips.append(
                _clip(
                    name,
                    "speech",
                    150 + 40 * place + number,
                    1.0 + number % 7 * 0.2,
                    f"key-{number}",
                    language=language,
                    text=text,
                    facts={"key": f"key-{number}"},
                )
            )
        for number, digit in enumerate(("one", "two", "three")):
            name = f"d-{language[:2]}-{digit}"
            facts = {"key": f"digits/{digit}", "digit": digit, "alone": True, "sounds_like": f"digit {digit}"}
            clips.append(
                _clip(name, "speech", 300 + 5 * place + number, 0.5, name, language=language, text=digit, facts=facts)
            )
    for place, label in enumerate(("kick drum", "snare drum", "cymbal", "bell", "drone", "whoosh")):
        clips += [
            _clip(
                f"s-{place}-{take}",
                "sound",
                500 + 90 * place + take,
                0.3 + 0.3 * place,
                f"s-{place}-{take}",
                label=label,
            )
            for take in range(4)
        ]
    scores = (([60], [60, 67]), ([64, 62, 60], [60, 64, 62]), ([60, 62, 64], [61]))
    for place, label in enumerate(("piano", "organ", "flute")):
        clips += [
            _clip(
                f"i-{place}-{preset}-{note}",
                "instrument",
                1200 + 90 * place + 9 * preset + note,
                1.0,
                f"i-{place}-{preset}",
                label=label,
                facts={"notes": scores[place][note], "beat_seconds": 0.33},
            )
            for preset in range(3)
            for note in range(2)
        ]
    return clips


def _clip(name: str, kind: str, frequency: float, seconds: float, group: str, **facts) -> Clip:
    return Clip(
        id=name,
        path=None,
        seconds=seconds,
        source="invented",
        licence="CC0-1.0",
        group=group,
        kind=kind,
        render=partial(tone, frequency, seconds),
        **facts,
    )


def tiny_recipe(**changes) -> DataRecipe:
    """A recipe of a set that builds in a second, whose sources are never read."""
    clips = {
        "longest_speech_seconds": 6.0,
        "prompts": {"train": 60, "validation": 10, "test": 20},
        "closed_variants": 1,
        "sounds_per_label": {"train": 4, "validation": 1, "test": 2},
        "instruments_per_label": {"train": 4, "validation": 1, "test": 2},
    }
    values = {
        "name": "tiny",
        "sources": [{"packaged": "sonic-pi"}],
        "clips": clips,
        "scenes": {"count": {"train": 30, "test": 20}},
        "questions": {
            "records": {
                "train": dict.fromkeys(FAMILIES, 20),
                "validation": dict.fromkeys(FAMILIES, 2),
                "test": dict.fromkeys(FAMILIES, 8),
            }
        },
        "filters": [{"name": "phrases"}, {"name": "grounding"}, {"name": "blind", "action": "mark"}],
        "output": {"form": "jsonl"},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
    return DataRecipe.model_validate(values)


def same_files(first: Path, second: Path) -> bool:
    """Whether two folders hold the same names with the same bytes."""
    return differing_files(first, second) == []


def differing_files(first: Path, second: Path) -> list[str]:
    """The names that one of two folders lacks, or that hold other bytes in it."""
    ours, theirs = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    )
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
