"""LTU (arXiv 2305.10790): `ltu_ori_paper.bin` and the checkpoints of its stages, `pytorch_model.bin`, tensors by name.

They hold what the published trainer saves: every tensor with `audio` or `lora` in its name. That is the whole encoder,
the linear layer and the adapter as PEFT names it; Vicuna is not in them.
"""

from __future__ import annotations

from lalm.conversion.cav_mae_names import ENCODER_RENAMES, ENCODER_UNREAD
from lalm.conversion.layout import Layout

MODEL = "base_model.model.model."
LORA = (r"language_model\.(.+\.lora_[AB])\.default\.weight", (r"base_model.model.\1.default.weight",))

LTU = Layout(
    parts=("encoder", "projector", "lora"),
    renames=(
        *ENCODER_RENAMES,
        (r"multi_modal_projector\.linear\.(\w+)", (rf"{MODEL}audio_proj.1.\1",)),
        LORA,
    ),
    unread=ENCODER_UNREAD,
)
