"""feature-l2: the student's features stay near the teacher's (ROAD, Chen et al. 2018; docs/method.md section 8).

    L = L_task + mu * mean over the positions of |f(x) - f_o(x)|^2

f(x) is the vector of the channels of layer4 at a position; student and teacher see the same view. The sum over the
channels makes the distance as many times larger as there are channels, compared with a mean over them: 2048 times for
ResNet-50 and -101, 1280 times for MobileNetV2. mu = 5e-5 with the sum is mu = 0.1 with the mean on 2048 channels.
"""

from __future__ import annotations

import torch

from csg_train.methods.base import Batch, Losses, Method, task_loss
from csg_train.methods.settings import FeatureL2Settings


class FeatureL2(Method):
    """The task loss and the distance between the student's and the teacher's layer4."""

    Settings = FeatureL2Settings
    trainings = ("full", "lp-ft", "lora")
    needs_teacher = True

    settings: FeatureL2Settings

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        (view,) = batch.views
        maps = self.student.encoder(view)
        with torch.no_grad():
            target = self.teacher(view)["layer4"]
        squares = (maps["layer4"].float() - target.float()).square()
        distance = squares.sum(1).mean() if self.settings.channels == "sum" else squares.mean()
        task = task_loss(self.student.classify(maps), batch.labels)
        return {"task": task, "feature": self.settings.weight * distance}, {}
