"""feature-l2: the student's features stay near the teacher's (ROAD, Chen et al. 2018; docs/method.md section 8).

    L = L_task + mu * mean (f(x) - f_o(x))^2

The mean is over the positions and channels of the map of layer4; student and teacher see the same view.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from csg_train.methods.base import Batch, Losses, Method, MethodSettings, task_loss


class FeatureL2Settings(MethodSettings):
    """Settings of feature-l2."""

    weight: Annotated[float, Field(ge=0)] = 0.1
    """mu, the weight of the distance."""


class FeatureL2(Method):
    """The task loss and the distance between the student's and the teacher's layer4."""

    Settings = FeatureL2Settings
    needs_teacher = True

    settings: FeatureL2Settings

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        (view,) = batch.views
        maps = self.student.encoder(view)
        with torch.no_grad():
            target = self.teacher(view)["layer4"]
        distance = F.mse_loss(maps["layer4"].float(), target.float())
        task = task_loss(self.student.classify(maps), batch.labels)
        return {"task": task, "feature": self.settings.weight * distance}, {}
