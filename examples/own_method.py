"""A method of your own, in one file: the task loss and a penalty on large logits (docs/how-to/method.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from csg_train.methods.base import Batch, Losses, Method, MethodSettings, task_loss


class SmallLogitsSettings(MethodSettings):
    """Settings of small-logits."""

    weight: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the penalty."""


class SmallLogits(Method):
    """The task loss and the mean squared logit: a student that is never very sure."""

    Settings = SmallLogitsSettings

    settings: SmallLogitsSettings

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        logits = self.student(batch.views[0])
        penalty = logits.float().square().mean()
        losses = {"task": task_loss(logits, batch.labels), "penalty": self.settings.weight * penalty}
        return losses, {"mean_squared_logit": penalty}
