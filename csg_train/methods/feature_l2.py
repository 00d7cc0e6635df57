"""feature-l2: the student's features stay near the teacher's (ROAD, Chen et al. 2018; docs/method.md section 8).

L = L_task + mu * mean (f(x) - f_o(x))^2 over the positions and channels of layer4's map, x the same view
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from csg_train.methods.base import Batch, Method, MethodSettings, Student, task_loss
from csg_train.models.backbones import Teacher


class FeatureL2Settings(MethodSettings):
    """weight: mu."""

    weight: Annotated[float, Field(ge=0)] = 0.1


class FeatureL2(Method):
    """The task loss and the distance between the student's and the teacher's layer4."""

    Settings = FeatureL2Settings
    needs_teacher = True

    def __init__(self, student: Student, teacher: Teacher | None, settings: FeatureL2Settings):
        super().__init__(student, teacher, settings)
        self.settings = settings

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        (view,) = batch.views
        maps = self.student.encoder(view)
        with torch.no_grad():
            target = self.teacher(view)["layer4"]
        distance = F.mse_loss(maps["layer4"].float(), target.float())
        task = task_loss(self.student.classify(maps), batch.labels)
        return {"task": task, "feature": self.settings.weight * distance}, {}
