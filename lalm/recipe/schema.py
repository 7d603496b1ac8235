"""The recipe: everything that one training run depends on, as one frozen object. All defaults live here.

Choices are names from small tables, never import paths. `lalm.recipe.load` reads one from YAML. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lalm.recipe.base import Section
from lalm.recipe.encoders import EncoderOptions, JoinSection
from lalm.recipe.projectors import ProjectorOptions

Fraction = Annotated[float, Field(ge=0, le=1)]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class LoraSection(Section):
    """Low-rank adaptation of the language model, by PEFT (arXiv 2106.09685)."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    targets: tuple[str, ...] | Literal["attention", "attention_mlp", "qv"] = "qv"
    """Names of linear layers, or a family-independent group that is resolved against the loaded model."""
    variant: Literal["lora", "dora", "rslora"] = "lora"


class CrossAttentionSection(Section):
    """Gated cross-attention before every n-th layer (Flamingo, arXiv 2204.14198; Audio Flamingo, 2402.01831).

    The defaults are Audio Flamingo's. Its sliding windows are the encoder's chunks.
    """

    every: PositiveInt = 1
    """A block before each layer whose number, from 1, is a multiple of this."""
    num_heads: PositiveInt = 8
    head_size: PositiveInt = 64
    feed_forward_factor: PositiveInt = 4
    audio_width: PositiveInt | None = None
    """Width of the vectors that the projector gives; the language model's by default."""
    sees: Literal["preceding", "last"] = "preceding"
    """Text hears every clip that stands before it, or only the nearest (Flamingo)."""


class LanguageModelSection(Section):
    """The decoder: any causal language model of transformers."""

    base: str
    """A folder, a hub name, `package:NAME`, or `random` (tests)."""
    template: str = "auto"
    """A file of chat_templates/ without its ending; `auto`: chosen by the tokenizer's own special tokens."""
    system: str = ""
    """The system turn of a conversation that brings none; empty for no system turn at all."""
    dtype: DType = "auto"
    """How frozen weights are held; `auto`: bfloat16 where the machine computes it, else float32."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """`auto`: sdpa on a GPU; eager on a CPU, where its backward is faster on the short rows that packing makes."""
    quantisation: Literal["none", "nf4", "int8"] = "none"
    lora: LoraSection | None = Field(default_factory=LoraSection)
    cross_attention: CrossAttentionSection | None = None
    """How audio enters: at positions of its own among the text (null), or by cross-attention blocks, which train with
    the projector; a clip is then one position."""
    random_sizes: dict[str, int] = Field(default_factory=dict)


class SourceSection(Section):
    """One file of records, filtered and weighted."""

    records: Path
    """A .jsonl, .parquet or .csv file or a `datasets` folder; relative to the data folder."""
    weight: PositiveFloat = 1.0
    """The share of draws from this source, relative to its size: 2 sees each record twice as often."""
    tasks: tuple[str, ...] | None = None
    """Keep these tasks only."""
    splits: tuple[str, ...] = ("train",)
    max_records: PositiveInt | None = None
    """Keep a seeded sample of at most this many."""


class DataSection(Section):
    """Where records come from and how they become batches."""

    folder: Path = Path(".")
    """What relative record paths start from; itself relative to where the command runs."""
    build: str | None = None
    """A data set that `lalm data build` makes when the folder lacks it (`quickstart`)."""
    sources: dict[str, SourceSection] = Field(min_length=1)
    max_audio_seconds: PositiveFloat = 30.0
    """Longer clips are refused (counted and listed), never cut."""
    min_audio_seconds: float = Field(default=0.02, ge=0)
    max_text_tokens: PositiveInt = 512
    """A longer conversation loses the tail of its answer, keeps its end token, and is counted."""
    cache_states: bool = True
    """Run a frozen encoder once for each clip and keep its states."""
    cache_dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    packing: Literal["none", "rows", "shared_prefix"] = "shared_prefix"
    """One record a row; several records a row; several a row with the audio of a clip shared by its questions."""
    max_bad_share: Fraction = 0.01
    """More unreadable clips than this stop the run; fewer are quarantined and listed."""


class LearningRates(Section):
    """Peak learning rate of each part; a part without one is frozen in the stage."""

    projector: PositiveFloat | None = None
    lora: PositiveFloat | None = None
    encoder: PositiveFloat | None = None
    language_model: PositiveFloat | None = None


class StageSection(Section):
    """One stage of the curriculum: what trains, on what, for how long."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    objective: Literal["language_model", "contrastive"] = "language_model"
    """The answer's likelihood; or the projector alone, so that a clip's audio vectors point to its answer's embedding
    among the answers of its task (no decoder pass)."""
    learning_rates: LearningRates
    sources: tuple[str, ...] | None = None
    """Names from `data.sources`; all of them by default."""
    tasks: tuple[str, ...] | None = None
    """Keep these tasks only."""
    steps: PositiveInt | None = None
    """Optimizer steps; or give `epochs`."""
    epochs: PositiveFloat | None = None
    batch_records: PositiveInt = 16
    """Records in one optimizer step, over all processes."""
    micro_batch_tokens: PositiveInt = 2048
    """The most positions (text and audio) that one forward pass holds."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    min_lr_share: Fraction = 0.0
    """Where the cosine or the line ends, as a share of the peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: PositiveFloat = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    train_on_inputs: bool = False
    """Also put the loss on the user's turns (LTU, GAMA)."""
    gradient_checkpointing: bool = False
    save_every_steps: PositiveInt = 100
    log_every_steps: PositiveInt = 5
    lora_scale: PositiveFloat = 1.0
    """A factor on the adapter in this stage (SALMONN's activation tuning)."""

    @model_validator(mode="after")
    def _has_one_budget(self) -> StageSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of 'steps' and 'epochs'")
        if not any(value is not None for value in self.learning_rates.model_dump().values()):
            raise ValueError("learning_rates: give at least one of projector, lora, encoder, language_model")
        if self.objective == "contrastive" and (self.learning_rates.lora or self.learning_rates.language_model):
            raise ValueError("learning_rates: the contrastive objective trains projector and encoder only")
        return self


class GenerationSection(Section):
    """How answers are decoded in evaluation and chat."""

    max_new_tokens: PositiveInt = 64
    num_beams: PositiveInt = 1
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: PositiveFloat = 1.0
    lora_scale: float = Field(default=1.0, ge=0)
    """A factor on the adapter when answering; 0 is the language model without it."""


class EvaluationSection(Section):
    """What is measured after the last stage."""

    sources: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ("test",)
    max_records_per_task: PositiveInt | None = None
    max_deaf_records_per_task: PositiveInt | None = None
    """The yardsticks `silent` and `swapped` ask at most so many records of each task again; all of them by default."""
    batch_size: PositiveInt = 16
    yardsticks: tuple[Literal["silent", "swapped", "majority", "chance", "probe"], ...] = (
        "silent",
        "swapped",
        "majority",
        "chance",
        "probe",
    )


class OutputSection(Section):
    """What a run leaves behind."""

    folder: Path | None = None
    """`runs/<recipe name>` by default."""
    keep_checkpoints: PositiveInt = 2
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Besides the CSV file and the plot that are always written."""


class Recipe(Section):
    """One training run. See recipes/quickstart.yaml for a commented one."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    seed: int = Field(default=0, ge=0)
    encoders: tuple[EncoderOptions, ...] = Field(min_length=1)
    join: JoinSection = Field(default_factory=JoinSection)
    projector: ProjectorOptions
    language_model: LanguageModelSection
    data: DataSection
    stages: tuple[StageSection, ...] = Field(min_length=1)
    generation: GenerationSection = Field(default_factory=GenerationSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    output: OutputSection = Field(default_factory=OutputSection)
    deepspeed: dict[str, Any] | None = None
    """Merged last over the settings that are generated from this recipe."""

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        problems = []
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            problems.append(f"stages: names must differ, got {names}")
        wanted = [(f"stages[{i}].sources", stage.sources) for i, stage in enumerate(self.stages)]
        for place, sources in [*wanted, ("evaluation.sources", self.evaluation.sources)]:
            for source in sources or ():
                if source not in self.data.sources:
                    problems.append(f"{place}: no source '{source}' in data.sources ({', '.join(self.data.sources)})")
        encoder_names: list[str] = [encoder.name for encoder in self.encoders]
        if self.join.rate not in ("finest", "each") and encoder_names.count(self.join.rate) != 1:
            problems.append(
                f"join.rate: '{self.join.rate}' names {encoder_names.count(self.join.rate)} of the encoders "
                f"({', '.join(encoder_names)}); accepted: finest, each, or the name of one encoder"
            )
        for i, stage in enumerate(self.stages):
            if stage.learning_rates.lora is not None and self.language_model.lora is None:
                problems.append(f"stages[{i}].learning_rates.lora: language_model.lora is null, nothing to train")
            if stage.learning_rates.language_model is not None and self.language_model.quantisation != "none":
                problems.append(f"stages[{i}].learning_rates.language_model: a quantised model cannot be trained whole")
        problems += self._question_problems()
        if self.language_model.cross_attention is not None:
            problems += [
                f"stages[{i}].objective: the contrastive objective compares audio with text embeddings, which it does "
                "not meet with language_model.cross_attention"
                for i, stage in enumerate(self.stages)
                if stage.objective == "contrastive"
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _question_problems(self) -> list[str]:
        """What cannot be exact when a clip's positions depend on its question."""
        if not self.projector.needs_question:
            return []
        problems = []
        if self.data.packing == "shared_prefix":
            problems.append(
                "data.packing: with projector.reads_question a clip has other positions for each question, so "
                "questions cannot share them ('shared_prefix'). Accepted: rows, none"
            )
        problems += [
            f"stages[{i}].objective: the contrastive objective has no question for projector.reads_question to read"
            for i, stage in enumerate(self.stages)
            if stage.objective == "contrastive"
        ]
        return problems

    def run_folder(self) -> Path:
        """Where this run is written."""
        return self.output.folder or Path("runs") / self.name
