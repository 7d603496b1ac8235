"""What of the decoder is compiled for a stage on a CPU, where the recipe says so, or leaves it open and it pays.

Each stage decides for itself, or one that is resumed would compute otherwise than one that follows another.
"""

from __future__ import annotations

from rich.console import Console
from transformers import PreTrainedModel

from lalm.model.compiled_layers import compile_layers, is_tested_family, leave_layers, why_not_compiled
from lalm.model.grouped_attention import attend_in_tiles, is_grouped
from lalm.model.tiled_groups import has_tiles, why_no_kernel
from lalm.recipe.schema import Recipe, StageSection
from lalm.training.callbacks import say

LAYERS_PAY_FROM = 300
"""Decoder passes of a stage from which `auto` compiles layers: up to a minute."""
ATTENTION_PAYS_FROM = 30
"""The same of attention: some seconds."""


def compile_decoder(
    recipe: Recipe, stage: StageSection, decoder: PreTrainedModel, passes: int, console: Console
) -> None:
    """Compiles attention and layers for so many `passes` of the decoder, or leaves what an earlier stage compiled."""
    if "language_model" not in stage.objective_weights():
        return
    _attention(recipe, decoder, passes, console)
    _layers(recipe, decoder, passes, console)


def _attention(recipe: Recipe, decoder: PreTrainedModel, passes: int, console: Console) -> None:
    wanted = recipe.language_model.compile
    if not (is_grouped(decoder) and has_tiles(decoder)):
        return
    pays = wanted == "layers" or (wanted == "auto" and passes >= ATTENTION_PAYS_FROM)
    reason = why_no_kernel() if pays else None
    if reason is not None:
        say(console, f"The decoder's attention is not compiled: {reason}.")
    attend_in_tiles(decoder, wanted=pays and reason is None)


def _layers(recipe: Recipe, decoder: PreTrainedModel, passes: int, console: Console) -> None:
    wanted = recipe.language_model.compile
    could = decoder.device.type == "cpu" and recipe.keeps_layers_eager() is None and is_tested_family(decoder)
    pays = could and passes >= LAYERS_PAY_FROM
    reason = why_not_compiled(decoder) if wanted == "auto" and pays else None
    if reason is not None:
        say(console, f"The decoder's layers are not compiled: {reason}.")
    if wanted == "layers" or (wanted == "auto" and pays and reason is None):
        say(console, "The decoder's layers are compiled: the first steps take up to a minute longer.")
        compile_layers(decoder)
    else:
        leave_layers(decoder)
