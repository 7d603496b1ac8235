"""SALMONN (arXiv 2310.13289): `salmonn_v1.pth` and `salmonn_7b_v0.pth`, `{"model": {...}}`.

They hold the two norms, the Q-Former with its query, the linear layer to the language model, and the adapter as PEFT
names it. Whisper, BEATs and Vicuna are not in them.
"""

from __future__ import annotations

from lalm.conversion.layout import Layout
from lalm.conversion.qformer_names import qformer_renames

SALMONN = Layout(
    parts=("projector", "lora"),
    renames=(
        (r"multi_modal_projector\.norm\.streams\.0\.(\w+)", (r"ln_speech.\1",)),
        (r"multi_modal_projector\.norm\.streams\.1\.(\w+)", (r"ln_audio.\1",)),
        (r"multi_modal_projector\.queries", ("speech_query_tokens",)),
        *qformer_renames(r"multi_modal_projector\.qformer", "speech_Qformer"),
        (r"multi_modal_projector\.to_decoder\.(\w+)", (r"speech_llama_proj.\1",)),
        (r"language_model\.(.+\.lora_[AB])\.default\.weight", (r"llama_model.base_model.model.\1.default.weight",)),
    ),
    constants=(
        r"speech_Qformer\.bert\.embeddings\.position_ids",
        r"llama_model\.base_model\.model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    ),
)
