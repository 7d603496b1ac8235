"""The recipe: everything that one training run depends on, as one frozen object. All defaults live here.

Choices are names from small tables, never import paths. `lalm.recipe.load` reads one from YAML. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lalm.recipe.audio_language_models import take_base
from lalm.recipe.base import Section
from lalm.recipe.encoders import EncoderOptions, JoinSection, units_of
from lalm.recipe.projectors import ProjectorOptions
from lalm.recipe.system import SystemSection

Fraction = Annotated[float, Field(ge=0, le=1)]
DType = Literal["auto", "float32", "bfloat16", "float16"]
ObjectiveName = Literal["language_model", "contrastive", "matching", "classification"]
PartName = Literal["projector", "lora", "encoder", "language_model"]


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
    attention: Literal["auto", "grouped", "eager", "sdpa", "flash_attention_2"] = "auto"
    """`grouped`: each group of a packed row by itself, without padding and without a mask of the row; decoders whose
    scores are capped (Gemma 2) or biased (ALiBi) are refused. `auto`: grouped, which is the fastest
    (tests/benchmarks/attention.py); for the families that it refuses eager on a CPU, sdpa on a GPU."""
    kernels: Literal["auto", "liger", "none"] = "auto"
    """`liger`: Liger's fused norms, gates and rotary embeddings (extra `gpu`). `auto`: on a GPU, where the package is
    installed and knows the family."""
    compile: Literal["auto", "layers", "none"] = "auto"
    """`layers`: torch compiles the decoder's layers for training on a CPU; the first steps wait up to a minute for it.
    `auto`: where there is a C++ compiler, for families that are tested so, in stages long enough for it to pay. With
    either, attention is compiled too (some seconds) where the processor multiplies bfloat16 in tiles (AMX)."""
    quantisation: Literal["none", "nf4", "int8"] = "none"
    lora: LoraSection | None = Field(default_factory=LoraSection)
    cross_attention: CrossAttentionSection | None = None
    """How audio enters: at positions of its own among the text (null), or by cross-attention blocks, which train with
    the projector; a clip is then one position."""
    random_family: str = "llama"
    """With `base: random`: transformers' name of the family (`model_type`)."""
    random_sizes: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """With `base: random`: sizes for the family's own configuration."""


class SourceSection(Section):
    """One file of records, filtered and weighted."""

    records: Path
    """A .jsonl, .parquet or .csv file or a `datasets` folder; relative to the data folder."""
    streamed: bool = False
    """`records` is a folder of shards (`lalm data export-to-shards`), which are read while training goes on: each
    process its own rows, none held but those being shuffled. Clips of Parquet shards are relative to the data folder.
    """
    shuffle_rows: PositiveInt = 10_000
    """Rows of a streamed source that a process holds and shuffles at a time."""
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
    task_tags: Literal["none", "task", "hierarchical"] = "none"
    """What stands before each question, in training and evaluation: nothing; `[sound_name]`; or, as in Qwen-Audio,
    `[audio][en][sound_name]`, where a level that the record does not know (meta.audio_type, meta.language) is
    `unknown`."""
    closed_prefix: str = ""
    """What stands before questions with a closed answer (choice, yes_no, number), as LTU does; empty for nothing."""
    max_bad_share: Fraction = 0.01
    """More unreadable clips than this stop the run; fewer are quarantined and listed."""


class LearningRates(Section):
    """Peak learning rate of each part; a part without one is frozen in the stage."""

    projector: PositiveFloat | None = None
    lora: PositiveFloat | None = None
    encoder: PositiveFloat | None = None
    language_model: PositiveFloat | None = None
    heads: PositiveFloat | None = None
    """The heads of the objectives matching and classification. They start at random in every stage, are kept in the
    stage's own folder, and are no part of the model that answers."""


class ObjectiveWeights(Section):
    """The objectives of a stage and the weight of each in the sum; one without a weight is not computed."""

    language_model: PositiveFloat | None = None
    """The answer's likelihood."""
    contrastive: PositiveFloat | None = None
    """A clip's pooled audio positions must be nearest to its answer's embedding (InfoNCE)."""
    matching: PositiveFloat | None = None
    """A binary head tells a clip's own answer from the wrong answer that is most like the clip."""
    classification: PositiveFloat | None = None
    """A linear head names the answer among all answers of the stage's closed tasks."""


BUDGETS = ("steps", "epochs", "records", "audio_hours")


class AugmentSection(Section):
    """Random changes of a clip, fixed by seed, record and step. None moves a clip's end, so its positions stay."""

    gain_db: float = Field(default=0.0, ge=0)
    """Louder or quieter by up to this."""
    noise_db: float | None = None
    """White noise at this ratio of signal to noise or up to 20 dB less of it."""
    speed: Annotated[float, Field(ge=1, le=2)] = 1.0
    """Faster by a factor of up to this (pitch rises too); silence fills the end."""
    mix_probability: Fraction = 0.0
    """How often another clip of the stage is mixed in, 10 dB quieter."""
    mask_frames: int = Field(default=0, ge=0)
    """SpecAugment (arXiv 1904.08779): up to so many feature frames are silenced."""
    mask_bins: int = Field(default=0, ge=0)
    """SpecAugment: up to so many mel bins are silenced."""


class StageSection(Section):
    """One stage of the curriculum: what trains, on what, for how long."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    starts_from: str | None = None
    """An earlier stage whose weights this one starts from; the stage before it by default."""
    average_with: tuple[str, ...] = ()
    """Earlier stages that started where this one starts and trained the same parts: when it is done, its weights become
    the mean of its own and theirs (model soups, arXiv 2203.05482). A little better on new clips than each alone."""
    objective: ObjectiveName = "language_model"
    """One objective; only language_model passes through the decoder."""
    objectives: ObjectiveWeights | None = None
    """Several objectives, weighted, instead of `objective` (BLIP-2 and MINT train three at once)."""
    loss_per: Literal["token", "record"] = "token"
    """What language_model averages over: all supervised tokens alike, or records, each the mean of its own tokens."""
    task_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """A factor on the language_model loss of a task; 1 for the others."""
    contrastive_direction: Literal["audio_to_text", "both"] = "audio_to_text"
    """Each clip chooses its text; `both`: each text also chooses its clip among those of the batch (CLAP)."""
    contrastive_temperature: PositiveFloat = 0.07
    head_input: Literal["projector", "encoder"] = "projector"
    """What the classification head reads, averaged over the clip; `encoder` is a linear probe of its states."""
    answers: Literal["written", "continued"] = "written"
    """`continued`: the target of a clip is how the plain language model goes on after its transcript (BLSP). Records of
    answer_type transcript only; the targets are made before the stage starts."""
    continuation_prompt: str = "Continue the following text in a coherent and engaging style with less than 40 words."
    continuation_tokens: PositiveInt = 64
    """The most new tokens of a continuation."""
    learning_rates: LearningRates
    only: dict[PartName, tuple[str, ...]] = Field(default_factory=dict)
    """Train only those parameters of a part whose names match a pattern: `{encoder: ["*.layers.5.*"]}`. The whole part
    is held in float32."""
    sources: tuple[str, ...] | None = None
    """Names from `data.sources`; all of them by default."""
    tasks: tuple[str, ...] | None = None
    """Keep these tasks only."""
    splits: tuple[str, ...] | None = None
    """Keep these splits only, of those that the sources give."""
    min_answer_words: PositiveInt | None = None
    max_answer_words: PositiveInt | None = None
    """Keep records whose answer has so many words (a stage on long answers, or on short ones)."""
    source_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Replaces `data.sources.NAME.weight` in this stage; above 1 a source is repeated within an epoch."""
    mixture_temperature: PositiveFloat = 1.0
    """Shares of sources are raised to 1/temperature: above 1 small sources gain, 1 goes by size and weight."""
    in_context: int = Field(default=0, ge=0)
    """Worked examples of the same task (clip, question, answer) that open every conversation (SALM)."""
    augment: AugmentSection | None = None
    """Changes clips at random each time they are heard; needs `data.cache_states: false`."""
    mix_positions: Fraction = 0.0
    """Up to this share of another clip's mean position is blended into a clip's positions; its answers stay (manifold
    mixup, arXiv 1806.05236). Keeps a small set from being learned by heart."""
    steps: PositiveInt | None = None
    """Optimizer steps. Give one of steps, epochs, records, audio_hours."""
    epochs: PositiveFloat | None = None
    records: PositiveInt | None = None
    """Draws of records, rounded up to whole steps."""
    audio_hours: PositiveFloat | None = None
    """Audio of all draws together, rounded up to whole steps."""
    evaluate_every_steps: PositiveInt | None = None
    """Measure the loss on held-out records of the stage's sources and tasks that often."""
    evaluate_splits: tuple[str, ...] = ("validation",)
    evaluate_records: PositiveInt = 64
    """A seeded sample of at most so many held-out records."""
    stop_after: PositiveInt | None = None
    """End the stage when the held-out loss has not fallen for so many measurements."""
    load_best: bool | None = None
    """The stage leaves the weights of its lowest held-out loss, else its last ones; by default where `stop_after` is
    given."""
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
    def _holds_together(self) -> StageSection:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) != 1:
            raise ValueError(f"give exactly one of {', '.join(BUDGETS)}, got {', '.join(budgets) or 'none'}")
        rates = self.learning_rates.model_dump()
        if not any(value is not None for value in rates.values()):
            raise ValueError("learning_rates: give at least one of projector, lora, encoder, language_model, heads")
        if self.objectives is not None and self.objective != "language_model":
            raise ValueError("give 'objective' or 'objectives', not both")
        weights = self.objective_weights()
        if not weights:
            raise ValueError("objectives: give at least one weight")
        if "language_model" not in weights and (rates["lora"] or rates["language_model"]):
            alone = " and ".join(weights)
            raise ValueError(f"learning_rates: the {alone} objective trains projector, encoder and heads only")
        heads = [name for name in weights if name in ("matching", "classification")]
        if heads and rates["heads"] is None:
            raise ValueError(f"learning_rates.heads: {heads[0]} has a head that starts at random: give it a rate")
        if rates["heads"] is not None and not heads:
            raise ValueError("learning_rates.heads: only matching and classification have heads")
        if self.answers == "continued" and set(weights) != {"language_model"}:
            raise ValueError("answers: continued: only the language_model objective has such targets")
        if self.answers == "continued" and self.evaluate_every_steps is not None:
            raise ValueError("evaluate_every_steps: held-out records have no continued answers; leave it out")
        for part in self.only:
            if rates[part] is None:
                raise ValueError(f"only.{part}: learning_rates.{part} is not given, so nothing of it trains")
        if self.stop_after is not None and self.evaluate_every_steps is None:
            raise ValueError("stop_after: needs evaluate_every_steps")
        if self.load_best and self.evaluate_every_steps is None:
            raise ValueError("load_best: needs evaluate_every_steps")
        return self

    @property
    def trained_parts(self) -> list[str]:
        """The parts that this stage trains and leaves to the next; heads it keeps."""
        rates = self.learning_rates.model_dump(exclude={"heads"})
        return [part for part, rate in rates.items() if rate is not None]

    def objective_weights(self) -> dict[str, float]:
        """The objectives that are computed, with their weights; `objective: NAME` weighs 1."""
        if self.objectives is None:
            return {self.objective: 1.0}
        return self.objectives.model_dump(exclude_none=True)

    @property
    def keeps_best(self) -> bool:
        """Whether the stage leaves the weights of its lowest held-out loss."""
        return self.stop_after is not None if self.load_best is None else self.load_best

    def describe_budget(self) -> str:
        """`400 steps`, `2 epochs`, `1000 records` or `0.5 audio hours`."""
        name = next(name for name in BUDGETS if getattr(self, name) is not None)
        return f"{getattr(self, name):g} {name.replace('_', ' ')}"


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


class FsdpSection(Section):
    """FSDP2 over the processes of a run, in place of DeepSpeed's ZeRO-3."""

    reshard_after_forward: bool = True
    """Free a layer's gathered weights after its forward pass and gather them again for the backward one; `false` keeps
    them, which takes memory and saves traffic."""


class Recipe(Section):
    """One training run. See recipes/quickstart.yaml for a commented one."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    system: SystemSection | None = None
    """The published system that this recipe rebuilds."""
    seed: int = Field(default=0, ge=0)
    init: Path | None = None
    """The folder of a finished run whose weights the first stage starts from."""
    init_parts: tuple[PartName, ...] = ()
    """The parts that `init` brings: filled in when training starts, no setting of yours."""
    base: str | None = None
    """A whole audio language model (a folder or a hub name) in place of encoders, projector and language model, which
    it is turned into when the recipe is read; see `lalm.recipe.audio_language_models`."""
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
    fsdp: FsdpSection | None = None
    """Deals out weights, gradients and optimizer by torch's own FSDP2; `{}` takes its defaults."""

    @model_validator(mode="before")
    @classmethod
    def _take_base(cls, value: Any) -> Any:
        return take_base(value) if isinstance(value, dict) else value

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
            for source in stage.source_weights:
                if source not in self.data.sources:
                    known = ", ".join(self.data.sources)
                    problems.append(f"stages[{i}].source_weights: no source '{source}' in data.sources ({known})")
            if stage.starts_from is not None and stage.starts_from not in names[:i]:
                known = ", ".join(names[:i]) or "none"
                problems.append(
                    f"stages[{i}].starts_from: '{stage.starts_from}' is no earlier stage (earlier: {known})"
                )
            problems += [f"stages[{i}].average_with: {why}" for why in self._why_not_averaged(i)]
            if stage.augment is not None and self.data.cache_states:
                problems.append(
                    f"stages[{i}].augment: data.cache_states keeps the states of unchanged clips; set it to false"
                )
            if stage.learning_rates.lora is not None and self.language_model.lora is None:
                problems.append(f"stages[{i}].learning_rates.lora: language_model.lora is null, nothing to train")
            if stage.learning_rates.language_model is not None and self.language_model.quantisation != "none":
                problems.append(f"stages[{i}].learning_rates.language_model: a quantised model cannot be trained whole")
        for i, size in enumerate(self.system.sizes if self.system else ()):
            if size.stage is not None and size.stage not in names:
                problems.append(f"system.sizes[{i}].stage: '{size.stage}' is no stage ({', '.join(names)})")
        problems += self._question_problems()
        problems += self._unit_problems()
        problems += self._dealing_problems()
        if self.language_model.compile == "layers" and (reason := self.keeps_layers_eager()) is not None:
            problems.append(f"language_model.compile: layers: not with {reason}. Use auto or none")
        if self.language_model.cross_attention is not None:
            problems += [
                f"stages[{i}].objective: {', '.join(stage.objective_weights())}: compares audio with text embeddings, "
                "which it does not meet with language_model.cross_attention"
                for i, stage in enumerate(self.stages)
                if set(stage.objective_weights()) != {"language_model"}
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def keeps_layers_eager(self) -> str | None:
        """The key with which the language model's layers cannot be compiled; None if there is none."""
        keys = {
            "deepspeed": self.deepspeed is not None,
            "fsdp": self.fsdp is not None,
            "language_model.cross_attention": self.language_model.cross_attention is not None,
            "language_model.quantisation": self.language_model.quantisation != "none",
        }
        return next((key for key, is_given in keys.items() if is_given), None)

    def _dealing_problems(self) -> list[str]:
        """What cannot be dealt out over processes."""
        problems = []
        if self.deepspeed is not None and self.fsdp is not None:
            problems.append("fsdp: deepspeed is given too, and either deals out the same. Give one of them")
        zero = (self.deepspeed or {}).get("zero_optimization") or {}
        quantisation = self.language_model.quantisation
        packed = f"and those of language_model.quantisation: {quantisation} are packed with scales beside them"
        if zero.get("stage") == 3 and quantisation != "none":
            problems.append(
                f"deepspeed.zero_optimization.stage: 3 deals out slices of weights, {packed}. Use stage 1 or 2, or "
                "quantisation: none"
            )
        if self.fsdp is not None and quantisation != "none":
            problems.append(
                f"fsdp: deals out slices of weights, {packed}. Use deepspeed.zero_optimization.stage: 2, or "
                "quantisation: none"
            )
        return problems

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
            f"stages[{i}].objective: {', '.join(stage.objective_weights())}: no question for projector.reads_question"
            for i, stage in enumerate(self.stages)
            if set(stage.objective_weights()) != {"language_model"}
        ]
        return problems

    def _unit_problems(self) -> list[str]:
        """Where units and their embeddings do not meet, or a clip's positions would not be known in time."""
        units = [units_of(encoder) for encoder in self.encoders]
        reads_units = self.projector.name == "units"
        if not any(units):
            return ["projector.name: 'units' needs an encoder with `units`"] if reads_units else []
        problems = []
        if len(units) > 1:
            problems.append("encoders: units are read alone, without other encoders beside them")
        if not reads_units:
            problems.append(f"projector.name: '{self.projector.name}' reads states, encoders[0].units needs 'units'")
        problems += [
            f"stages[{i}].learning_rates.encoder: nothing in front of encoders[0].units can be trained"
            for i, stage in enumerate(self.stages)
            if stage.learning_rates.encoder is not None
        ]
        problems += [
            f"stages[{i}].head_input: 'encoder' reads states, encoders[0].units gives units"
            for i, stage in enumerate(self.stages)
            if stage.head_input == "encoder"
        ]
        if units[0] is not None and units[0].drop_repeats:
            if not self.data.cache_states:
                problems.append(
                    "data.cache_states: with encoders[0].units.drop_repeats a clip's positions are known once it was "
                    "encoded. Accepted: true, or drop_repeats: false"
                )
            problems += [
                f"data.sources.{name}.streamed: with encoders[0].units.drop_repeats clips are encoded before training. "
                "Accepted: false, or drop_repeats: false"
                for name, source in self.data.sources.items()
                if source.streamed
            ]
        return problems

    def _why_not_averaged(self, index: int) -> list[str]:
        stage, found = self.stages[index], []
        earlier = {other.name: number for number, other in enumerate(self.stages[:index])}
        for name in stage.average_with:
            if name not in earlier:
                found.append(f"'{name}' is no earlier stage (earlier: {', '.join(earlier) or 'none'})")
                continue
            other = self.stages[earlier[name]]
            if self._parent(earlier[name]) != self._parent(index):
                found.append(
                    f"'{name}' starts from {self._parent(earlier[name]) or 'the base'}, this stage from "
                    f"{self._parent(index) or 'the base'}. Set starts_from"
                )
            if (other.trained_parts, other.only) != (stage.trained_parts, stage.only):
                found.append(
                    f"'{name}' trains {', '.join(other.trained_parts)}, this stage {', '.join(stage.trained_parts)}: "
                    "both must train the same"
                )
        return found

    def _parent(self, index: int) -> str | None:
        """The stage whose weights a stage starts from; None for the first."""
        return self.stages[index].starts_from or (self.stages[index - 1].name if index else None)

    def lineage(self, index: int) -> list[int]:
        """The earlier stages whose weights stage `index` starts from, in the order in which they were trained."""
        names = [stage.name for stage in self.stages]
        chain: list[int] = []
        while (parent := self._parent(index)) is not None:
            index = names.index(parent)
            chain.insert(0, index)
        return chain

    def run_folder(self) -> Path:
        """Where this run is written."""
        return self.output.folder or Path("runs") / self.name
