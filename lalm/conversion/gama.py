"""GAMA (arXiv 2406.11768): the checkpoints of stage 4 and of stage 5 (GAMA-IT), `pytorch_model.bin`, tensors by name.

They hold what the published trainer saves: every tensor with `audio`, `lora`, `qformer`, `Qformer` or `query_tokens` in
its name. That is encoder, Q-Former, aggregator, the layers to the language model and the adapter; Llama 2 is not in
them.

The published aggregator computes its attention to the tapped layers and drops the result: its feed-forward part takes
what stands before it. So these attentions, the norms of the taps, and a second feed-forward part of each layer are in
the file as they were before training, and a model that used them would hear noise. The settings build the network that
the weights were trained in.
"""

from __future__ import annotations

from lalm.conversion.cav_mae_names import ENCODER_RENAMES, ENCODER_UNREAD
from lalm.conversion.layout import Layout
from lalm.conversion.ltu import LORA, MODEL
from lalm.conversion.qformer_names import qformer_renames

OURS = r"multi_modal_projector\."


def _reader(number: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Renames of one layer of the aggregator: torch's encoder layer <- BERT's, query, key and value in one matrix."""
    ours, theirs = rf"{OURS}readers\.{number}\.", f"{MODEL}audio_aggregator_layer_{number + 1}."
    return (
        (rf"{ours}self_attn\.in_proj_(\w+)",
         tuple(rf"{theirs}attention.self.{name}.\1" for name in ("query", "key", "value"))),
        (rf"{ours}self_attn\.out_proj\.(\w+)", (rf"{theirs}attention.output.dense.\1",)),
        (rf"{ours}norm1\.(\w+)", (rf"{theirs}attention.output.LayerNorm.\1",)),
        (rf"{ours}linear1\.(\w+)", (rf"{theirs}intermediate.dense.\1",)),
        (rf"{ours}linear2\.(\w+)", (rf"{theirs}output.dense.\1",)),
        (rf"{ours}norm2\.(\w+)", (rf"{theirs}output.LayerNorm.\1",)),
    )  # fmt: skip


def _to_decoder(ours: str, theirs: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Renames of two linear layers, behind a norm of its own in ours."""
    return (
        (rf"{OURS}{ours}_to_decoder\.1\.(\w+)", (rf"{MODEL}audio_proj_{theirs}.0.\1",)),
        (rf"{OURS}{ours}_to_decoder\.3\.(\w+)", (rf"{MODEL}audio_proj_{theirs}.2.\1",)),
    )


GAMA = Layout(
    parts=("encoder", "projector", "lora"),
    renames=(
        *ENCODER_RENAMES,
        (rf"{OURS}queries", (f"{MODEL}query_tokens",)),
        (rf"{OURS}norm\.(\w+)", (rf"{MODEL}qformer_proj_norm.\1",)),
        *qformer_renames(rf"{OURS}qformer", f"{MODEL}Qformer"),
        *_reader(0),
        *_reader(1),
        *_to_decoder("queries", "qformer"),
        *_to_decoder("steps", "audioenc"),
        LORA,
    ),
    constants=(r"base_model\.model\.model\.Qformer\.bert\.embeddings\.position_ids",),
    unread=(
        *ENCODER_UNREAD,
        r"base_model\.model\.model\.audio_aggregator_layer_[12]\.(crossattention|intermediate_query|output_query)\..+",
    ),
    encoder_settings={"layers": "last", "layers_as": "mean"},
    projector_settings={"reads_taps": False},
)
