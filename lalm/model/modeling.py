"""`LalmForConditionalGeneration`: audio tower, projector and language model as one transformers model.

Audio vectors take their positions among the text embeddings; their count must equal the count of placeholders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from lalm.encoders import build_encoder, encoder_name
from lalm.errors import ModelError
from lalm.model.attention_mask import masks_of_layers
from lalm.model.audio_tower import AudioTower
from lalm.model.configuration import LalmConfig
from lalm.model.cross_attention import (
    CONTEXT_INPUTS,
    CrossAttention,
    context_inputs,
    range_of_step,
    unheard_context,
)
from lalm.model.decoder import add_lora, empty_language_model, lora_layers
from lalm.model.encoder_decoder import answer_logits, answer_loss, generate_answers
from lalm.model.grouped_attention import grouped_inputs, in_whole_tiles, is_grouped, is_in_tiles
from lalm.model.loss import language_model_loss
from lalm.model.mixing import blend_clips
from lalm.model.objectives import ObjectiveHeads, alignment_losses
from lalm.projectors import build_projector
from lalm.projectors.base import Projector

AUDIO_INPUTS = (
    *("input_features", "feature_lengths", "chunk_counts", "audio_states", "audio_state_lengths"),
    *("question_ids", "question_lengths"),
)
PARTS = ("encoder", "projector", "lora", "language_model")
"""What a stage of a recipe can train, and a model that answers consists of."""
LOGIT_SCALINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What some families' configurations say of the logits: Gemma 2, Cohere, Granite."""
HEADS = "heads"
"""The part that a model has only while a stage trains it, see `lalm.model.objectives`."""


@dataclass
class LalmOutput(CausalLMOutputWithPast):
    """transformers' own output of a decoder, and more of the loss.

    `logits` are left out when labels are given: they exist at supervised positions only, inside the loss.

    `token_losses [n]`: of each supervised token, row by row. `losses`: of each objective before its weight.
    """

    token_losses: Tensor | None = None
    losses: dict[str, Tensor] | None = None


class LalmForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Hears clips and writes text.

    `from_pretrained` takes a run folder (trained parts on named bases), or a folder of whole weights that
    `save_pretrained` wrote.
    """

    config_class = LalmConfig
    config: LalmConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    sequence_loss = staticmethod(language_model_loss)
    """Decoder states and labels -> loss; `lalm bench` measures another here."""

    def __init__(
        self,
        config: LalmConfig,
        *,
        audio_tower: AudioTower | None = None,
        language_model: PreTrainedModel | None = None,
    ):
        """Random weights, but for the parts that are handed over ready (without adapter)."""
        super().__init__(config)
        sections = config.encoder_sections()
        self.audio_tower = audio_tower or AudioTower(
            [build_encoder(section, sizes) for section, sizes in sections],
            [encoder_name(section) for section, _ in sections],
            config.join_section(),
        )
        self.language_model = language_model or empty_language_model(config.text_config)
        cross_attention = config.cross_attention_section()
        width = cast(nn.Embedding, self.get_input_embeddings()).embedding_dim
        audio_width = cross_attention.audio_width or width if cross_attention else width
        self.multi_modal_projector = _build_projector(config, self.audio_tower, audio_width)
        self.cross_attention = (
            CrossAttention(cross_attention, self.language_model, audio_width) if cross_attention else None
        )
        self.objective_heads: ObjectiveHeads | None = None
        self.mix_positions = 0.0  # of the stage that trains, see `blend_clips`
        self.generation_config = self.language_model.generation_config
        self.post_init()
        # Only now: post_init would give the adapter the language model's random start, and B must start at zero.
        if (lora := config.lora_section()) is not None:
            add_lora(self.language_model, lora)

    def _init_weights(self, module: nn.Module) -> None:
        """Every part initialises itself where it is built."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any):
        """As transformers; a run folder loads its bases by name and its trained parts strictly."""
        from lalm.model.checkpoint import is_run_folder, load_model

        if is_run_folder(pretrained_model_name_or_path):
            return load_model(
                Path(pretrained_model_name_or_path),
                device=kwargs.get("device_map"),
                dtype=kwargs.get("dtype", kwargs.get("torch_dtype")),
            )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Every parameter, by the part that a stage of a recipe names; `heads` only where there are some."""
        names = PARTS if self.objective_heads is None else (*PARTS, HEADS)
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in names}
        for name, parameter in self.named_parameters():
            groups[_part_of(name)].append((name, parameter))
        return groups

    def set_lora_scale(self, scale: float) -> None:
        """Multiplies the adapter's trained strength by `scale` (SALMONN's activation tuning); 1 is as trained."""
        for layer in lora_layers(self.language_model):
            layer.set_scale("default", scale)
        self._lora_scale = scale

    @property
    def has_encoder(self) -> bool:
        """Whether the language model is an encoder-decoder, whose encoder reads the prompt."""
        return self.language_model.config.is_encoder_decoder

    @property
    def packs_in_one_row(self) -> bool:
        """Whether a packed row costs attention within its groups only, so that one row without padding is cheapest.

        Cross-attention reads all clips of a row at every position: shorter rows are cheaper for it.
        """
        return is_grouped(self.language_model) and self.cross_attention is None

    @property
    def lora_scale(self) -> float:
        """The factor that is on the adapter now."""
        return getattr(self, "_lora_scale", 1.0)

    def encode_audio(
        self,
        input_features: Tensor | Sequence[Tensor],
        feature_lengths: Tensor | Sequence[Tensor],
        chunk_counts: Tensor | Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Features of some clips -> (`states [clips, T, E]`, `num_steps [clips]`). See `AudioTower.forward`."""
        return self.audio_tower(input_features, feature_lengths, chunk_counts)

    def get_audio_features(
        self,
        input_features: Tensor | Sequence[Tensor] | None = None,
        feature_lengths: Tensor | Sequence[Tensor] | None = None,
        chunk_counts: Tensor | Sequence[Tensor] | None = None,
        audio_states: Tensor | None = None,
        audio_state_lengths: Tensor | None = None,
        question_ids: Tensor | None = None,
        question_lengths: Tensor | None = None,
    ) -> Tensor:
        """Projected vectors `[A of all clips, D]`, clip after clip; from features, or from encoder states at hand."""
        positions, num_positions = self.project_audio(
            *(input_features, feature_lengths, chunk_counts, audio_states, audio_state_lengths),
            *(question_ids, question_lengths),
        )
        is_real = torch.arange(positions.shape[1], device=positions.device) < num_positions[:, None]
        return positions[is_real]

    def project_audio(
        self,
        input_features: Tensor | Sequence[Tensor] | None,
        feature_lengths: Tensor | Sequence[Tensor] | None,
        chunk_counts: Tensor | Sequence[Tensor] | None,
        audio_states: Tensor | None,
        audio_state_lengths: Tensor | None,
        question_ids: Tensor | None = None,
        question_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`positions [clips, A, D]` with zeros behind the real ones, `num_positions [clips]`."""
        if audio_states is None:
            audio_states, audio_state_lengths = self.encode_audio(input_features, feature_lengths, chunk_counts)
        return self._project(audio_states, audio_state_lengths, question_ids, question_lengths)

    def _project(
        self,
        states: Tensor,
        num_steps: Tensor,
        question_ids: Tensor | None = None,
        question_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if not self.audio_tower.num_units:  # half precision cannot tell all units apart
            states = states.to(next(self.multi_modal_projector.parameters()).dtype)
        if (num_layers := self.multi_modal_projector.num_layer_inputs) > 1:  # they come side by side on width
            states = states.unflatten(-1, (num_layers, -1)).transpose(1, 2)
        question: tuple[Tensor | None, ...] = ()
        if self.multi_modal_projector.reads_question and question_ids is not None:
            question = self.get_input_embeddings()(question_ids), question_lengths
        positions, num_positions = self.multi_modal_projector(states, num_steps, *question)
        if self.training and self.mix_positions:
            positions = blend_clips(
                positions,
                num_positions,
                self.mix_positions,
                num_summaries=self.multi_modal_projector.num_summaries,
            )
        return positions, num_positions

    def embed(self, input_ids: Tensor, **audio: Any) -> Tensor:
        """`[B, L]` ids with placeholders and the clips that fill them, in row order -> `[B, L, D]`.

        Raises:
            ValueError: if the clips give another number of vectors than there are placeholders.
        """
        is_audio = input_ids == self.config.audio_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        has_audio = any(audio.get(name) is not None for name in ("input_features", "audio_states"))
        num_placeholders = int(is_audio.sum())
        if not has_audio:
            if num_placeholders:
                raise ValueError(f"the text holds {num_placeholders} audio positions, but no audio was given")
            return embeds
        return self._place(embeds, is_audio, self.get_audio_features(**audio))

    @staticmethod
    def _place(embeds: Tensor, is_audio: Tensor, vectors: Tensor) -> Tensor:
        if len(vectors) != (num_placeholders := int(is_audio.sum())):
            raise ValueError(f"the text holds {num_placeholders} audio positions, but the clips give {len(vectors)}")
        return embeds.masked_scatter(is_audio[..., None], vectors.to(embeds.dtype))

    def embed_inputs(self, input_ids: Tensor, group_ids: Tensor | None = None, **audio: Any) -> dict[str, Tensor]:
        """What stands for `[B, L]` ids and their clips in `forward`: `inputs_embeds`, and what cross-attention reads.

        Raises:
            ValueError: if the clips do not fill the placeholders.
        """
        if self.cross_attention is None:
            return {"inputs_embeds": self.embed(input_ids, **audio)}
        audio_token_id = cast(int, self.config.audio_token_id)
        is_clip = input_ids.eq(audio_token_id)
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_clip, 0))
        embeds = torch.where(is_clip[..., None], self.cross_attention.placeholder.to(embeds.dtype), embeds)
        if not any(value is not None for value in audio.values()):
            if is_clip.any():
                raise ValueError(f"the text holds {int(is_clip.sum())} placeholders, but no audio was given")
            return {"inputs_embeds": embeds}
        positions, num_positions = self.project_audio(**{name: audio.get(name) for name in AUDIO_INPUTS})
        context = context_inputs(input_ids, audio_token_id, positions, num_positions, group_ids)
        return {"inputs_embeds": embeds, **context}

    def _embed_unheard(self, input_ids: Tensor, audio: Mapping[str, Any]) -> dict[str, Tensor]:
        """`embed_inputs` of text alone, and a clip that takes part in the graph and changes nothing."""
        inputs = self.embed_inputs(input_ids)
        if self.cross_attention is not None:
            positions, _ = self.project_audio(**{name: audio.get(name) for name in AUDIO_INPUTS})
            return inputs | unheard_context(positions, *input_ids.shape)
        embeds = inputs["inputs_embeds"]
        return {"inputs_embeds": embeds + (self.get_audio_features(**audio).sum() * 0.0).to(embeds.dtype)}

    def begin_objectives(
        self, weights: Mapping[str, float], *, num_classes: int = 0, seed: int = 0, **options: Any
    ) -> None:
        """Gives the model the heads of a stage's objectives (see `ObjectiveHeads`), at the same start for a seed.

        Raises:
            ModelError: if the language model's text does not go through `_answer_loss`.
        """
        if self.cross_attention is not None or self.has_encoder:
            raise ModelError(
                f"objectives: {', '.join(weights)} need audio among the positions of a decoder. With "
                "language_model.cross_attention, or an encoder-decoder, the one objective is language_model."
            )
        table = self.get_input_embeddings().weight.detach()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            heads = ObjectiveHeads(
                weights,
                decoder_width=table.shape[1],
                encoder_width=self.audio_tower.width,
                embedding_centre=table.float().mean(dim=0),
                num_classes=num_classes,
                **options,
            )
        self.objective_heads = heads.to(table.device)

    def end_objectives(self) -> None:
        """Takes the heads away again."""
        self.objective_heads = None

    def _objectives(
        self,
        audio: Mapping[str, Any],
        objective_items: Mapping[str, Any],
        text: Mapping[str, Any],
        num_items: Mapping[str, Any],
        audio_is_unheard: bool,
    ) -> LalmOutput:
        """All objectives of the stage on one micro-batch, whose clips pass through tower and projector once.

        `audio` are the arguments of `get_audio_features`.
        """
        if self.objective_heads is None:
            raise ValueError("objective_items need heads: call begin_objectives first")
        states, num_steps = audio.get("audio_states"), audio.get("audio_state_lengths")
        if states is None:
            states, num_steps = self.encode_audio(
                audio["input_features"], audio["feature_lengths"], audio["chunk_counts"]
            )
        questions = audio.get("question_ids"), audio.get("question_lengths")
        positions, num_positions = self._project(states, num_steps, *questions)
        losses: dict[str, Tensor] = {}
        token_losses = None
        if text.get("labels") is not None:
            is_audio = text["input_ids"] == self.config.audio_token_id
            embeds = self.get_input_embeddings()(text["input_ids"].masked_fill(is_audio, 0))
            if audio_is_unheard:
                embeds = embeds + (positions.sum() * 0.0).to(embeds.dtype)
            else:
                is_real = torch.arange(positions.shape[1], device=positions.device) < num_positions[:, None]
                embeds = self._place(embeds, is_audio, positions[is_real])
            losses["language_model"], token_losses = self._answer_loss(
                embeds, num_items=num_items.get("language_model"), **text
            )
        candidates = None
        if "candidate_ids" in objective_items:
            candidates = self.get_input_embeddings()(objective_items["candidate_ids"]).detach()
        losses |= alignment_losses(
            self.objective_heads,
            (positions, num_positions - self.multi_modal_projector.num_summaries),
            self._learned_summaries(positions, num_positions),
            (states, num_steps),
            candidates,
            objective_items,
            num_items,
        )
        return LalmOutput(
            loss=self.objective_heads.weighted(losses),
            token_losses=token_losses,
            losses={name: loss.detach() for name, loss in losses.items()},
        )

    def _learned_summaries(self, positions: Tensor, num_positions: Tensor) -> Tensor | None:
        """The last position of each clip `[clips, D]` where the projector has weights for it."""
        if not self.multi_modal_projector.summary_is_learned:
            return None
        return positions[torch.arange(len(positions), device=positions.device), num_positions - 1]

    def _answer_loss(
        self,
        inputs_embeds: Tensor,
        *,
        labels: Tensor,
        label_weights: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        group_ids: Tensor | None,
        branch_ids: Tensor | None,
        num_items: Tensor | float | None,
        input_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`language_model_loss` of embedded rows `[B, L, D]`."""
        seen: dict[str, Any] = {"attention_mask": attention_mask}
        length = inputs_embeds.shape[1]
        if group_ids is not None and self.cross_attention is None and is_in_tiles(self.language_model):
            inputs_embeds, position_ids, group_ids, branch_ids = in_whole_tiles(
                inputs_embeds, position_ids, group_ids, branch_ids
            )
        if is_grouped(self.language_model):
            seen = grouped_inputs(group_ids, branch_ids, position_ids, attention_mask, inputs_embeds.dtype)
        elif group_ids is not None:
            text_config = self.language_model.config.get_text_config()
            seen["attention_mask"] = masks_of_layers(
                text_config, group_ids, branch_ids, position_ids, inputs_embeds.dtype
            )
        if (
            torch.is_grad_enabled()
            and not inputs_embeds.requires_grad
            and self.language_model.is_activation_checkpointing
        ):
            inputs_embeds = inputs_embeds.detach().requires_grad_()
        # The cache is off: with one, transformers 5 no longer sees that a row is packed.
        hidden_states = self.get_decoder()(
            inputs_embeds=inputs_embeds, position_ids=position_ids, use_cache=False, **seen
        ).last_hidden_state
        return self.sequence_loss(
            hidden_states[:, :length],
            labels,
            self.loss_head(),
            vocab_size=self.get_output_embeddings().weight.shape[0],
            label_weights=label_weights,
            num_items=num_items,
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | Sequence[Tensor] | None = None,
        feature_lengths: Tensor | Sequence[Tensor] | None = None,
        chunk_counts: Tensor | Sequence[Tensor] | None = None,
        audio_states: Tensor | None = None,
        audio_state_lengths: Tensor | None = None,
        question_ids: Tensor | None = None,
        question_lengths: Tensor | None = None,
        group_ids: Tensor | None = None,
        branch_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        audio_context: Tensor | None = None,
        audio_context_clips: Tensor | None = None,
        audio_range: Tensor | None = None,
        cache: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | float | Mapping[str, Tensor | float] | None = None,
        label_weights: Tensor | None = None,
        objective_items: Mapping[str, Any] | None = None,
        audio_is_unheard: bool = False,
        **kwargs: Any,
    ) -> LalmOutput:
        """Loss when `labels` are given, logits otherwise (of an encoder-decoder: of the answer's first token).

        Args:
            input_ids: `[B, L]`, with `config.audio_token_id` at every audio position.
            attention_mask: `[B, L]`, 0 at padding; leave it out for packed rows.
            labels: `[B, L]`, -100 where nothing is supervised; label i is predicted at i - 1.
            input_features, feature_lengths, chunk_counts: clips as features, see `AudioTower.forward`.
            audio_states, audio_state_lengths: `[clips, T, E]`, `[clips]`: the same clips as encoder states.
            question_ids, question_lengths: `[clips, K]`, `[clips]`: the text of each clip's turn, for a projector that
                reads it.
            group_ids, branch_ids: `[B, L]`, packed rows, see `lalm.model.attention_mask`.
            audio_context, audio_context_clips, audio_range: what cross-attention reads beside `inputs_embeds`, see
                `lalm.model.cross_attention.context_inputs`.
            num_items_in_batch: what the loss is divided by: supervised tokens (or their weights) of the whole optimizer
                step; for several objectives, by name.
            label_weights: `[B, L]`, see `language_model_loss`.
            audio_is_unheard: no text holds the clip; it only takes tower and projector through their paces, as every
                process must in every micro-batch.
            objective_items: what the stage's other objectives read, see `alignment_losses`; after `begin_objectives`.
            cache: keys and values of earlier positions.
        """
        num_items = num_items_in_batch if isinstance(num_items_in_batch, Mapping) else {}
        text = {
            "input_ids": input_ids,
            "labels": labels,
            "label_weights": label_weights,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "group_ids": group_ids,
            "branch_ids": branch_ids,
        }
        audio = {
            "input_features": input_features,
            "feature_lengths": feature_lengths,
            "chunk_counts": chunk_counts,
            "audio_states": audio_states,
            "audio_state_lengths": audio_state_lengths,
            "question_ids": question_ids,
            "question_lengths": question_lengths,
        }
        if objective_items is not None:
            return self._objectives(audio, objective_items, text, num_items, audio_is_unheard)
        if inputs_embeds is None:
            if audio_is_unheard:
                inputs = self._embed_unheard(input_ids, audio)
            else:
                inputs = self.embed_inputs(input_ids, group_ids, **audio)
            inputs_embeds = inputs["inputs_embeds"]
            if "audio_context" in inputs:
                audio_context, audio_context_clips, audio_range = (inputs[name] for name in CONTEXT_INPUTS)
        if self.cross_attention is not None:
            length = inputs_embeds.shape[1]
            self.cross_attention.set_context(audio_context, audio_context_clips, audio_range, length)
        if self.has_encoder:
            if labels is not None:
                if label_weights is not None:
                    raise ValueError(
                        "an encoder-decoder weighs all answer tokens alike: loss_per: token, no task_weights"
                    )
                loss = answer_loss(self.language_model, inputs_embeds, labels, attention_mask, num_items_in_batch)
                return LalmOutput(loss=loss)
            first = torch.zeros_like(inputs_embeds[:, :1, 0], dtype=torch.long)
            return LalmOutput(logits=answer_logits(self.language_model, inputs_embeds, attention_mask, first))
        if labels is None:
            outputs = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                cache=cache,
                **kwargs,
            )
            return LalmOutput(
                logits=outputs.logits,
                hidden_states=outputs.get("hidden_states"),
                attentions=outputs.get("attentions"),
                cache=outputs.get("cache"),
            )
        num_items = num_items_in_batch.get("language_model") if num_items else num_items_in_batch
        loss, token_losses = self._answer_loss(inputs_embeds, num_items=num_items, **text)
        return LalmOutput(loss=loss, token_losses=token_losses)

    def loss_head(self) -> Callable[[Tensor], Tensor]:
        """`[n, D]` -> logits `[n, V]`: the matrix itself where a family puts no scaling behind it."""
        config = self.config.text_config
        is_plain = all(getattr(config, name, None) is None for name in LOGIT_SCALINGS)
        return self.get_output_embeddings() if is_plain else self._scaled_logits

    def _scaled_logits(self, hidden_states: Tensor) -> Tensor:
        logits = self.get_output_embeddings()(hidden_states)
        config = self.config.text_config
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (scaling := getattr(config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / scaling
        return logits

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """As transformers' own. Clips are embedded first, so that beams and several samples keep theirs."""
        audio = {name: kwargs.pop(name) for name in AUDIO_INPUTS if name in kwargs}
        input_ids = kwargs.pop("input_ids", inputs)
        if audio and kwargs.get("inputs_embeds") is None:
            kwargs |= self.embed_inputs(input_ids, **audio)
        if self.config.audio_token_id < self.get_output_embeddings().weight.shape[0]:
            kwargs.setdefault("suppress_tokens", [self.config.audio_token_id])  # a reply holds no audio positions
        if self.has_encoder:
            if kwargs.get("inputs_embeds") is None:
                kwargs |= self.embed_inputs(input_ids)
            return generate_answers(self.language_model, **kwargs)
        return super().generate(inputs=None, input_ids=input_ids, **kwargs)

    def prepare_inputs_for_generation(
        self, *args: Any, inputs_embeds: Tensor | None = None, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict:
        """Clips are needed for the first step only; later steps read them from the cache.

        `inputs_embeds` is named because `generate` reads this signature to learn that embedded prompts are accepted.
        """
        inputs = super().prepare_inputs_for_generation(
            *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in AUDIO_INPUTS:
                inputs.pop(name, None)
        if inputs.get("audio_range") is not None:
            read = inputs["input_ids"] if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
            inputs["audio_range"] = range_of_step(inputs["audio_range"], read.shape[1], is_first=is_first_iteration)
        return inputs


def _part_of(name: str) -> str:
    if name.startswith("objective_heads."):
        return HEADS
    if name.endswith(".mix.weights"):
        return "projector"  # the learned sum of layers sits behind the frozen encoder
    if name.startswith("audio_tower."):
        return "encoder"
    if name.startswith(("multi_modal_projector.", "cross_attention.")):
        return "projector"
    return "lora" if ".lora_" in name else "language_model"


def _build_projector(config: LalmConfig, tower: AudioTower, audio_width: int) -> Projector:
    num_layers = tower.num_layer_outputs
    return build_projector(
        config.projector_section(),
        tower.width // num_layers,
        audio_width,
        stream_widths=tower.stream_widths,
        num_layers_given=num_layers,
        num_units=tower.num_units,
    )
