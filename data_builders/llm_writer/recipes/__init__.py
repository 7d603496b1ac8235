"""The recipes of writing: one file each, and this table. A recipe is a prompt, the form of a reply, and its checks."""

from __future__ import annotations

from data_builders.llm_writer.recipes import (
    chain,
    dialogue,
    music_qa,
    one_sound,
    open_aqa,
    reasoning,
    spoken,
    staged_caption,
)
from data_builders.llm_writer.recipes.base import WritingRecipe
from lalm.errors import DataError

RECIPES: dict[str, WritingRecipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (open_aqa, reasoning, dialogue, music_qa, staged_caption, spoken, chain, one_sound)
}


def writing_recipe(name: str) -> WritingRecipe:
    """The recipe of that name.

    Raises:
        DataError: for an unknown name.
    """
    if name not in RECIPES:
        raise DataError(f"--recipe '{name}' is not known. Accepted: {', '.join(RECIPES)}.")
    return RECIPES[name]
