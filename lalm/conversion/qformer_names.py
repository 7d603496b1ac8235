"""BLIP-2's Q-Former, which SALMONN and GAMA took over: its names there, and in transformers."""

from __future__ import annotations


def qformer_renames(ours: str, theirs: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Renames of a Q-Former without text branch; `ours` a pattern, `theirs` the module that holds `bert`."""
    return (
        (rf"{ours}\.layernorm\.(\w+)", (rf"{theirs}.bert.embeddings.LayerNorm.\1",)),
        (
            rf"{ours}\.encoder\.layer\.(\d+)\.(attention|crossattention)\.attention\.(query|key|value)\.(\w+)",
            (rf"{theirs}.bert.encoder.layer.\1.\2.self.\3.\4",),
        ),
        (
            rf"{ours}\.encoder\.layer\.(\d+)\.((?:attention|crossattention)\.output|intermediate_query|output_query)"
            r"\.(dense|LayerNorm)\.(\w+)",
            (rf"{theirs}.bert.encoder.layer.\1.\2.\3.\4",),
        ),
    )
