"""`LalmConfig`: which encoders, projector and language model a model is made of, with all their sizes."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from lalm.audio.lengths import Chain, Constant, LengthRule
from lalm.recipe.encoders import EncoderOptions, EncoderSection, JoinSection
from lalm.recipe.projectors import ProjectorOptions, ProjectorSection
from lalm.recipe.schema import CrossAttentionSection, LoraSection


class LalmConfig(PreTrainedConfig):
    """Enough to rebuild the model with random weights; the weights come from a checkpoint or from the bases.

    Args:
        encoders: one `{"section": recipe section, "config": the encoder's own sizes}` for each encoder.
        join: the recipe's section on how several encoders are joined.
        projector: the recipe's projector section.
        text_config: the configuration of the causal language model.
        lora: the recipe's LoRA section, or None.
        language_model: the recipe's language-model section (which base, how it is held).
        audio_token_id: the id that stands for an audio position; it may lie beyond the embedding table.
    """

    model_type = "lalm"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}  # noqa: RUF012

    encoders: list | None = None
    join: dict | None = None
    projector: dict | None = None
    text_config: dict | PreTrainedConfig | None = None
    lora: dict | None = None
    language_model: dict | None = None
    audio_token_id: int | None = None
    tie_word_embeddings: bool = False

    def encoder_sections(self) -> list[tuple[EncoderSection, dict[str, Any]]]:
        """Each encoder's recipe section and its own sizes."""
        adapter: TypeAdapter[EncoderSection] = TypeAdapter(EncoderOptions)
        return [(adapter.validate_python(item["section"]), item["config"]) for item in self.encoders or ()]

    def join_section(self) -> JoinSection:
        """The recipe's section on how several encoders are joined."""
        return JoinSection.model_validate(self.join or {})

    def projector_section(self) -> ProjectorSection:
        """The recipe's projector section."""
        return TypeAdapter(ProjectorOptions).validate_python(self.projector)

    def cross_attention_section(self) -> CrossAttentionSection | None:
        """The recipe's cross-attention section; None for audio at positions of its own."""
        section = (self.language_model or {}).get("cross_attention")
        return CrossAttentionSection.model_validate(section) if section else None

    def position_rule(self) -> LengthRule:
        """Encoder steps of a clip -> its positions in the text."""
        rule = self.projector_section().length_rule()
        return rule if self.cross_attention_section() is None else Chain(rules=(rule, Constant(outputs=1)))

    def lora_section(self) -> LoraSection | None:
        """The recipe's LoRA section; None for a language model without adapter."""
        return LoraSection.model_validate(self.lora) if self.lora else None
