"""Encoders whose network is transformers' own: configuration and weights out of a folder that transformers saved.

Weights are read from safetensors only, and names must fit exactly: what a base holds beyond the encoder (heads, a text
tower, a decoder) is named by a pattern of the family, and anything else left over is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from lalm.encoders.base import AudioEncoder
from lalm.errors import ModelError
from lalm.recipe.encoders import EncoderSection
from lalm.resources import file_fingerprint, find_base

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WITHOUT_ADAPTER: dict[str, Any] = {"adapter_kwargs": {"subfolder": "no adapter is here"}}
"""For `from_pretrained`: an adapter beside a model's weights (Granite Speech) is left alone. transformers 5 would load
it by itself, into whatever part of the model is asked for; it looks for it where these words send it."""
SHOWN_NAMES = 5
"""Of the tensors that do not fit, as many are named in an error."""
Facts = dict[str, Any]
"""What a front end takes from its base beside the recipe: rate, normalisation, mel bins."""


class PretrainedEncoder(AudioEncoder):
    """An encoder around a model of transformers, with what its front end took from the base."""

    model: Any  # A PreTrainedModel; its parts are named by the families' own files.

    def __init__(self, model: PreTrainedModel, facts: Facts):
        super().__init__()
        self.model = model
        self.facts = facts

    def config_dict(self) -> dict[str, Any]:
        return {"config": json.loads(self.model.config.to_json_string(use_diff=False)), "front_end": self.facts}


@dataclass(frozen=True)
class Family:
    """How one architecture of transformers becomes an encoder.

    Attributes:
        encoder: section, model, facts -> encoder.
        model_types: what config.json may call itself.
        front_end_facts: section, the configuration, what config.json and preprocessor_config.json say -> facts. The
            last two are empty for `base: random`.
        random_sizes: the configuration of `base: random`.
        settled: what the configuration is set to whatever the base says.
        part: the key of config.json under which a larger model keeps this encoder's configuration.
        renames: pattern -> replacement for names in the base's file.
        left_over: names in the base's file that are no part of the encoder.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    encoder: Callable[[Any, Any, Facts], AudioEncoder]
    model_types: tuple[str, ...]
    front_end_facts: Callable[[Any, Any, dict[str, Any], dict[str, Any]], Facts]
    random_sizes: dict[str, Any]
    settled: dict[str, Any] = field(default_factory=dict)
    part: str | None = None
    renames: dict[str, str] | None = None
    left_over: str = r"(?!)"


def build_wrapped(family: Family, section: EncoderSection, config: dict[str, Any] | None) -> AudioEncoder:
    """Random weights; sizes from `config` (see `PretrainedEncoder.config_dict`), the base's files, or `random_sizes`.

    Raises:
        ModelError: if the base cannot be read or is another kind of model.
    """
    if config is not None:
        hf_config, facts = family.config_class.from_dict(config["config"]), config["front_end"]
    elif section.base == "random":
        hf_config = family.config_class(**{**family.random_sizes, **section.random_sizes, **family.settled})
        facts = family.front_end_facts(section, hf_config, {}, {})
    else:
        hf_config, facts = _read_config(family, section)
    return family.encoder(section, family.model_class(hf_config), facts)


def load_wrapped(family: Family, section: EncoderSection) -> AudioEncoder:
    """The base's weights in float32.

    Raises:
        ModelError: if the base cannot be read, is another kind of model, or a tensor is missing, left over or of
            another shape.
    """
    hf_config, facts = _read_config(family, section)
    model = _load_strictly(family, section.base, local_folder(section.base, section), hf_config)
    return family.encoder(section, model, facts)


def fingerprint_wrapped(section: EncoderSection) -> str:
    """Weights and options."""
    weights = "random" if section.base == "random" else file_fingerprint(local_folder(section.base, section))
    preprocessor = b"" if section.base == "random" else _bytes(local_folder(section.base, section) / PREPROCESSOR)
    options = section.model_dump_json(exclude={"base"}).encode()
    return hashlib.sha256(b":".join((weights.encode(), options, preprocessor))).hexdigest()


def local_folder(base: str, section: EncoderSection) -> Path:
    """The folder that a base names.

    Raises:
        ModelError: if there is none; nothing is downloaded.
    """
    found = find_base(base)
    if not isinstance(found, Path) or not found.is_dir():
        raise ModelError(
            f"encoders: {_name(section)}: base {base!r} is no folder here. Name a folder that transformers' "
            "save_pretrained wrote, or that was downloaded from the hub."
        )
    return found


def _read_config(family: Family, section: EncoderSection) -> tuple[PreTrainedConfig, Facts]:
    folder = local_folder(section.base, section)
    raw = _read_json(folder / CONFIG)
    if raw is None:
        raise ModelError(f"encoders: {_name(section)}: {folder} holds no {CONFIG}.")
    if raw.get("model_type") not in family.model_types:
        raise ModelError(
            f"encoders: {_name(section)}: {folder} holds a {raw.get('model_type')!r} model; this encoder takes "
            f"{' or '.join(map(repr, family.model_types))}."
        )
    own = raw[family.part] if family.part and family.part in raw else raw
    hf_config = family.config_class.from_dict({**{k: v for k, v in own.items() if k != "model_type"}, **family.settled})
    return hf_config, family.front_end_facts(section, hf_config, raw, _read_json(folder / PREPROCESSOR) or {})


def _load_strictly(family: Family, base: str, folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # What is left over is judged here, and not told to the user as a warning.
    logging.disable_progress_bar()
    try:
        loaded: Any = family.model_class.from_pretrained(
            folder,
            config=config,
            key_mapping=family.renames,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            **WITHOUT_ADAPTER,
        )
    except OSError as error:
        raise ModelError(
            f"base {base!r}: {folder} holds no weights as safetensors ({str(error).splitlines()[0]}). A pickle is not "
            f"read: save it again with {family.model_class.__name__}.from_pretrained(old).save_pretrained(new)."
        ) from error
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()
    model, report = loaded
    left_over = [name for name in report["unexpected_keys"] if not re.match(family.left_over, name)]
    wrong = sorted(str(name) for name in report["mismatched_keys"])
    missing = sorted(report["missing_keys"])
    if missing or left_over or wrong:
        raise ModelError(
            f"base {base!r} does not fit {family.model_class.__name__}: missing {missing[:SHOWN_NAMES]}, left over "
            f"{sorted(left_over)[:SHOWN_NAMES]}, other shape {wrong[:SHOWN_NAMES]}."
        )
    return model


def _name(section: EncoderSection) -> str:
    return section.name  # type: ignore[attr-defined]


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON ({error}). Copy the model again.") from None


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
