"""When which part of a training begins, and the factor of the learning rates in each step.

LP-FT (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution") has two
parts: the head trains alone on the pretrained encoder, then everything trains, from that head.
"""

from __future__ import annotations

from dataclasses import dataclass

from csg_train.recipe import Optim, Recipe
from csg_train.training.optimizer import rate_factor


@dataclass(frozen=True)
class Schedule:
    """The parts of a training."""

    steps: int
    """Of the whole training."""
    probe: int
    """Steps at the beginning in which the head trains alone, with LP-FT; otherwise 0."""
    optim: Optim
    """With `warm_up` and `power`."""

    @classmethod
    def of(cls, recipe: Recipe, images: int) -> Schedule:
        """The schedule of a recipe for `images` images; with LP-FT both parts have at least one step, if there are two.

        Example:
            >>> from csg_train.recipe import load_recipe
            >>> Schedule.of(load_recipe("digits", {"model.training": "lp-ft", "optim.steps": 10}), images=100).probe
            5
        """
        steps = recipe.schedule(images)
        probe = min(max(1, round(recipe.optim.probe * steps)), steps - 1)
        return cls(steps, probe if recipe.model.training == "lp-ft" else 0, recipe.optim)

    def factor(self, step: int) -> float:
        """Factor of the learning rates in a step, counted from 0; each part has a warm-up and a decay of its own."""
        if step < self.probe:
            return rate_factor(step, self.probe, self.optim)
        return rate_factor(step - self.probe, self.steps - self.probe, self.optim)
