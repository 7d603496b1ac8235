"""From a recipe to a model and its processor: the bases are loaded by name, the rest starts at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import AutoConfig, PreTrainedModel

from lalm.audio.lengths import Chain, Constant, LengthRule
from lalm.encoders import build_encoder, encoder_name, load_encoder
from lalm.encoders.base import AudioEncoder
from lalm.model.audio_tower import AudioTower
from lalm.model.configuration import LalmConfig
from lalm.model.decoder import (
    awaits_conversion,
    check_packing,
    choose_dtype,
    load_config,
    load_language_model,
    load_tokenizer,
)
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.model.whole_models import load_projector, text_config_of
from lalm.processing.processor import LalmProcessor
from lalm.recipe.encoders import EncoderSection
from lalm.recipe.known_bases import KNOWN_ENCODERS, KNOWN_FRONT_ENDS, KNOWN_LANGUAGE_MODELS
from lalm.recipe.schema import LanguageModelSection, Recipe
from lalm.resources import downloaded_config, is_at_hand

SAMPLED_EMBEDDINGS = 4096
"""Rows of a table that its scale is taken from where the whole table is not what the layers get."""


def build_model(
    recipe: Recipe, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None
) -> tuple[LalmForConditionalGeneration, LalmProcessor]:
    """The model of a recipe before training, frozen but for projector and adapter, and its processor.

    `dtype` is how the frozen language model is held (the recipe's choice by default); trained parts are float32.

    Raises:
        ModelError: if a base cannot be found, or parts do not fit together.
    """
    torch.manual_seed(recipe.seed)
    dtype = dtype or choose_dtype(recipe.language_model.dtype)
    tower = build_tower(recipe, [load_encoder(section, choose_dtype(section.dtype)) for section in recipe.encoders])
    processor = build_processor(recipe, tower)
    language_model = load_language_model(recipe.language_model, dtype)
    check_packing(language_model.config, recipe.data.packing)
    config = build_config(recipe, tower, language_model.config, processor.audio_token_id)
    model = LalmForConditionalGeneration(config, audio_tower=tower, language_model=language_model)
    if model.cross_attention is None:
        model.multi_modal_projector.match_scale(embedding_scale(language_model))
    else:
        model.cross_attention.match_scale(embedding_scale(language_model))
    if (base := getattr(recipe.projector, "base", None)) is not None:
        load_projector(model.multi_modal_projector, base)
    trainable = {id(parameter) for part in ("projector", "lora") for _, parameter in model.parts()[part]}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trainable)
    return model.to(device or default_device()).eval(), processor


def embedding_scale(language_model: PreTrainedModel) -> float:
    """Standard deviation of the text embeddings' numbers, as the decoder's layers get them."""
    table = cast(torch.nn.Embedding, language_model.get_input_embeddings())
    if type(table) is torch.nn.Embedding:
        return table.weight.detach().float().std().item()
    # Gemma 3's table multiplies what it gives.
    ids = torch.linspace(0, table.num_embeddings - 1, SAMPLED_EMBEDDINGS, device=table.weight.device).long()
    return table(ids).detach().float().std().item()


def build_config(recipe: Recipe, tower: AudioTower, text_config, audio_token_id: int) -> LalmConfig:
    """The configuration that rebuilds the recipe's model."""
    sections = zip(recipe.encoders, tower.encoders, strict=True)
    return LalmConfig(
        encoders=[
            {"section": section.model_dump(mode="json"), "config": encoder.config_dict()}
            for section, encoder in sections
        ],
        join=recipe.join.model_dump(mode="json"),
        projector=recipe.projector.model_dump(mode="json"),
        text_config=text_config,
        lora=recipe.language_model.lora and recipe.language_model.lora.model_dump(mode="json"),
        language_model=recipe.language_model.model_dump(mode="json"),
        audio_token_id=audio_token_id,
        # A config resets this choice in its sub-configs, and a decoder without one ignores its attention mask.
        attn_implementation={"text_config": text_config._attn_implementation},
    )


def build_tower(recipe: Recipe, encoders: Sequence[AudioEncoder]) -> AudioTower:
    """The recipe's encoders, joined as it says."""
    return AudioTower(encoders, [section.name for section in recipe.encoders], recipe.join)


def build_processor(recipe: Recipe, tower: AudioTower) -> LalmProcessor:
    """The processor that goes with a tower: its front ends, and the rule from samples to audio positions."""
    return LalmProcessor.create(
        load_tokenizer(recipe.language_model),
        template=recipe.language_model.template,
        front_ends=[encoder.front_end for encoder in tower.encoders],
        position_rule=position_rule(recipe, tower),
        system=recipe.language_model.system,
        reads_question=recipe.projector.needs_question,
        step_rule=step_rule(recipe) if tower.drops_repeats else None,
    )


def position_rule(recipe: Recipe, tower: AudioTower) -> LengthRule:
    """Samples of a clip -> its positions in the text; the most where repeated units are left out."""
    return Chain(rules=(tower.length_rule, *step_rule(recipe).rules))


def step_rule(recipe: Recipe) -> Chain:
    """Encoder steps of a clip -> its positions: the projector's, or one where cross-attention reads them."""
    rules: tuple[LengthRule, ...] = (recipe.projector.length_rule(),)
    if recipe.language_model.cross_attention is not None:
        rules += (Constant(outputs=1),)
    return Chain(rules=rules)


def build_empty(recipe: Recipe) -> LalmForConditionalGeneration:
    """The recipe's model on the meta device: all shapes, no weights.

    Sizes are those of the bases' own files where they are on this machine, else those of
    `lalm.recipe.known_bases`. A hub is asked only for a base that neither has.
    """
    with torch.device("meta"):
        tower = build_tower(recipe, [build_encoder(section, known_sizes(section)) for section in recipe.encoders])
        text_config = known_text_config(recipe.language_model) or load_config(recipe.language_model)
        check_packing(text_config, recipe.data.packing)
        config = build_config(recipe, tower, text_config, audio_token_id=text_config.vocab_size)
        return LalmForConditionalGeneration(config, audio_tower=tower)


def known_sizes(section: EncoderSection) -> dict[str, Any] | None:
    """What `build_encoder` takes as configuration of a base that is not on this machine; None: read its own files."""
    if section.base == "random" or is_at_hand(section.base):
        return None
    name = encoder_name(section)
    if name == "whisper" and (path := downloaded_config(section.base)) is not None:
        return json.loads(path.read_text(encoding="utf-8"))
    sizes = KNOWN_ENCODERS.get(section.base)
    if sizes is None or name in ("whisper", "beats", "cav_mae"):
        return sizes
    return {"config": sizes, "front_end": KNOWN_FRONT_ENDS.get(section.base, {})}


def known_text_config(section: LanguageModelSection) -> Any:
    """The configuration of a language model that is not on this machine, or of a packaged one that must be converted
    first; None: read its own files."""
    if section.base == "random":
        return None
    if is_at_hand(section.base):
        if not awaits_conversion(section.base):
            return None
    elif (path := downloaded_config(section.base)) is not None:
        return text_config_of(AutoConfig.from_pretrained(path.parent, trust_remote_code=False))
    sizes = KNOWN_LANGUAGE_MODELS.get(section.base)
    return AutoConfig.for_model(**sizes) if sizes else None


def default_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
