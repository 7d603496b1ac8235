"""What a recipe may say of an audio encoder: one options class an encoder, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lalm.recipe.base import Section


class EncoderSection(Section):
    """What every encoder has."""

    base: str
    """A folder, a file, a hub name, `package:NAME` (weights carried by a package), or `random` (tests)."""
    layers: Literal["last", "weighted"] | tuple[int, ...] = "last"
    """The last layer, a learned weighted sum of all (SpeechVerse; trained with the projector, at its learning rate), or
    some, counted from 0 = the output of the first block."""
    layers_as: Literal["mean", "separate"] = "mean"
    """What a list of `layers` becomes: their mean, or a state of its own each, in the order of the list, for a
    projector that reads several (GAMA's aggregator, LTU-AS's)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """How a frozen encoder computes; `auto`: bfloat16 where the machine multiplies in it, else float32."""
    random_sizes: dict[str, int | float | str | bool | tuple[int, ...]] = Field(default_factory=dict)
    """With `base: random`: sizes for the encoder's own transformers configuration."""

    @model_validator(mode="after")
    def _has_layers_to_separate(self) -> EncoderSection:
        if self.layers_as == "separate" and (not isinstance(self.layers, tuple) or len(self.layers) < 2):
            raise ValueError("layers_as: separate needs `layers` to be a list of at least two")
        return self


class WhisperSection(EncoderSection):
    """Whisper's encoder (arXiv 2212.04356) from a transformers folder, an official `.pt` or a CTranslate2 folder."""

    name: Literal["whisper"] = "whisper"
    padding: Literal["full", "real", "margin"] = "full"
    """What the encoder is shown: 30 s as in its training, the clip alone, or the clip and some silence. Positions that
    are only padding never reach the projector, whichever it is."""
    margin_seconds: float = Field(default=1.0, ge=0, le=30)
    """The silence that `padding: margin` adds."""


class BeatsSection(EncoderSection):
    """BEATs (arXiv 2212.09058) from an official `.pt`, or a folder that `lalm.encoders.beats.save_beats` wrote."""

    name: Literal["beats"] = "beats"
    padding: Literal["real", "full"] = "real"
    """What the encoder is shown: the clip alone, or what the published code makes of it in a batch whose longest clip
    has `chunk_seconds`: silence behind it, of which a border counts as real."""
    chunk_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are cut into pieces of this length."""


class SpeechSection(EncoderSection):
    """What wav2vec 2.0 and its relatives have. Clips are heard at their real length."""

    chunk_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are cut into pieces of this length."""
    normalised: bool | Literal["auto"] = "auto"
    """Zero mean and unit variance for each piece; `auto`: as the base's preprocessor_config.json says (yes for
    `random`)."""


class Wav2Vec2Section(SpeechSection):
    """wav2vec 2.0 (arXiv 2006.11477) from a transformers folder."""

    name: Literal["wav2vec2"] = "wav2vec2"


class HubertSection(SpeechSection):
    """HuBERT (arXiv 2106.07447) from a transformers folder."""

    name: Literal["hubert"] = "hubert"


class WavLMSection(SpeechSection):
    """WavLM (arXiv 2110.13900) from a transformers folder."""

    name: Literal["wavlm"] = "wavlm"


class MertSection(SpeechSection):
    """MERT (arXiv 2306.00107), music at 24 kHz: HuBERT's network. Checkpoints that need more than that are refused."""

    name: Literal["mert"] = "mert"


class Wav2Vec2BertSection(EncoderSection):
    """w2v-BERT 2.0 (arXiv 2312.05187), a Conformer, from a transformers folder."""

    name: Literal["w2v_bert"] = "w2v_bert"
    chunk_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are cut into pieces of this length."""


class ClapSection(EncoderSection):
    """CLAP's audio tower, HTSAT (arXiv 2211.06687), from a transformers folder: ten seconds at a time."""

    name: Literal["clap"] = "clap"
    layers: Literal["last"] = "last"
    """The stages have different widths and rates: only the last can be taken."""
    pooling: Literal["none", "mean"] = "none"
    """32 states for ten seconds, each the mean over frequency; or one for each piece, as Pengi takes it."""
    fill: Literal["repeat", "silence"] = "repeat"
    """What follows a piece shorter than ten seconds: itself again, as published, or silence. States behind the piece
    are left out (`pooling: mean` hears them)."""


class AstSection(EncoderSection):
    """AST (arXiv 2104.01778) from a transformers folder."""

    name: Literal["ast"] = "ast"
    padding: Literal["full", "real"] = "full"
    """What the encoder is shown: 10.24 s as in its training, or the clip alone."""
    frequency: Literal["mean", "keep"] = "mean"
    """One state for each column of patches, their mean (LTU); or all patches, time first and then frequency."""


class CavMaeSection(EncoderSection):
    """The audio branch of a fine-tuned CAV-MAE (arXiv 2210.07839), the encoder of LTU and GAMA, from an official file:
    10.24 s at a time, one state for each column of patches."""

    name: Literal["cav_mae"] = "cav_mae"
    padding: Literal["full", "real"] = "full"
    """What the encoder is shown: 10.24 s as in its training, or the clip alone."""
    keep_filler: bool = False
    """With `padding: full`: also the states behind the end of a clip, which LTU and GAMA take. 64 for any clip."""

    @model_validator(mode="after")
    def _has_filler_to_keep(self) -> CavMaeSection:
        if self.keep_filler and self.padding != "full":
            raise ValueError(f"keep_filler needs padding: full; with padding: {self.padding} nothing is filled")
        return self


class CodecSection(EncoderSection):
    """What codecs have: the continuous vectors in front of the quantiser are the states."""

    layers: Literal["last"] = "last"
    """Only the codec's output can be taken."""
    chunk_seconds: float = Field(default=30.0, gt=0)
    """Longer clips are cut into pieces of this length; never longer than the codec's own."""


class EncodecSection(CodecSection):
    """EnCodec (arXiv 2210.13438) from a transformers folder."""

    name: Literal["encodec"] = "encodec"


class DacSection(CodecSection):
    """Descript's codec (arXiv 2306.06546) from a transformers folder."""

    name: Literal["dac"] = "dac"


class MimiSection(CodecSection):
    """Mimi (arXiv 2410.00037) from a transformers folder."""

    name: Literal["mimi"] = "mimi"


class Qwen2AudioSection(EncoderSection):
    """Qwen2-Audio's encoder (arXiv 2407.10759) out of a transformers folder of the whole model, or saved alone."""

    name: Literal["qwen2_audio"] = "qwen2_audio"


class AudioFlamingo3Section(EncoderSection):
    """Audio Flamingo 3's encoder (arXiv 2507.08128) out of a transformers folder of the whole model, or saved alone."""

    name: Literal["audio_flamingo3"] = "audio_flamingo3"


class VoxtralSection(EncoderSection):
    """Voxtral's encoder (arXiv 2507.13264) out of a transformers folder of the whole model, or saved alone."""

    name: Literal["voxtral"] = "voxtral"
    silence: Literal["kept", "dropped"] = "kept"
    """Whether the states of the silence that fills a clip to whole chunks of 30 s are handed on, as published (375
    positions for each 30 s, however short the clip), or left out."""


class GraniteSpeechSection(EncoderSection):
    """Granite Speech's Conformer (arXiv 2505.08699) out of a transformers folder of the whole model, or saved alone."""

    name: Literal["granite_speech"] = "granite_speech"
    chunk_seconds: float = Field(default=600.0, gt=0)
    """Longer clips are cut into pieces of this length. The published model hears a clip at once, however long."""


class JoinSection(Section):
    """How several encoders of one recipe become one sequence of states."""

    axis: Literal["width", "time"] = "width"
    """Side by side at one rate, or one after the other. In time each encoder keeps slots of the width of its own, with
    zeros in the others', so that the projector's first layer has weights for each."""
    rate: str = "finest"
    """For `width`: the rate of the joined states. `finest`, or an encoder's name: every other encoder gives, at each of
    its steps, the state nearest in time. `each`: step beside step whatever their times, zeros behind the shorter
    (SALMONN, whose encoders have one rate)."""


EncoderOptions = Annotated[
    WhisperSection
    | BeatsSection
    | ClapSection
    | AstSection
    | CavMaeSection
    | Wav2Vec2Section
    | HubertSection
    | WavLMSection
    | MertSection
    | Wav2Vec2BertSection
    | EncodecSection
    | DacSection
    | MimiSection
    | Qwen2AudioSection
    | AudioFlamingo3Section
    | VoxtralSection
    | GraniteSpeechSection,
    Field(discriminator="name"),
]
