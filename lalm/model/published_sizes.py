"""What a paper prints of its system's size, beside what the recipe builds."""

from __future__ import annotations

from dataclasses import dataclass

from lalm.model.planned import ModelPlan
from lalm.recipe.schema import Recipe
from lalm.recipe.system import PublishedSize

TOLERANCE = 0.02
"""Sizes agree within this share: papers round."""


@dataclass(frozen=True)
class SizeComparison:
    """One printed figure and ours."""

    size: PublishedSize
    ours: float

    @property
    def difference(self) -> float:
        """By which share ours is larger than the paper's."""
        return self.ours / self.size.value - 1

    @property
    def agrees(self) -> bool:
        """Whether ours is the paper's within `TOLERANCE`, or below the bound that the paper prints."""
        if self.size.at_most:
            return self.ours <= self.size.value
        return abs(self.ours - self.size.value) <= TOLERANCE * self.size.value

    @property
    def is_explained(self) -> bool:
        """Whether ours agrees, or the recipe says why it does not."""
        return self.agrees or self.size.differs is not None

    def describe(self) -> str:
        """What is counted: `trained in instruct`, `positions of 30 s`, `encoder`."""
        if self.size.of == "positions":
            return f"positions of {self.size.seconds:g} s"
        if self.size.of == "trained":
            return f"trained in {self.size.stage}" if self.size.stage else "trained in the last stage"
        return self.size.of.replace("_", " ")


def compare_sizes(recipe: Recipe, plan: ModelPlan) -> list[SizeComparison]:
    """Each figure of `recipe.system.sizes` beside ours; none for a recipe without a system."""
    sizes = recipe.system.sizes if recipe.system else ()
    return [SizeComparison(size, _ours(size, plan)) for size in sizes]


def _ours(size: PublishedSize, plan: ModelPlan) -> float:
    if size.seconds is not None:
        return plan.positions[size.seconds]
    if size.of == "all":
        return plan.num_parameters
    if size.of == "trained":
        stages = {stage.name: stage for stage in plan.stages}
        return (stages[size.stage] if size.stage else plan.stages[-1]).num_trained
    return plan.parameters[size.of]
