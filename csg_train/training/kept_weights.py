"""What a training keeps of its student's weights, from which the student is made at the end."""

from __future__ import annotations

from csg.errors import UsageError
from csg_train.methods.base import Student
from csg_train.recipe import Recipe
from csg_train.training.averaging import WeightAverage
from csg_train.training.dense_average import START_PATIENCE, DenseAverage
from csg_train.training.interpolation import Interpolation
from csg_train.training.schedule import Schedule

KeptWeights = WeightAverage | DenseAverage | Interpolation
"""Each has `update(step)` after a step, and `pack()` and `unpack(tensors)` for checkpoints."""


def kept_weights(student: Student, recipe: Recipe, schedule: Schedule) -> KeptWeights | None:
    """What a recipe wants to be kept; None if nothing is.

    Args:
        student: before its first step.
        recipe: of the run.
        schedule: of the training.

    Raises:
        UsageError: the measurements are too few for SWAD.
    """
    optim, every, steps = recipe.optim, recipe.evaluate_every, schedule.steps
    if optim.average:
        return WeightAverage(student, steps, optim.average)
    if optim.swad is not None:
        count = -(-steps // every)
        if count < START_PATIENCE:
            raise UsageError(
                f"optim.swad finds no start in {count} measurements (evaluate_every={every} in {steps} steps)",
                f"measure at least {START_PATIENCE} times: --evaluate-every {max(1, steps // START_PATIENCE)} or less",
            )
        return DenseAverage(student, optim.swad)
    return Interpolation(student, schedule.probe) if optim.wise is not None else None
