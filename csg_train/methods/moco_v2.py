"""moco-v2: contrast with a moving average of the student (He et al. 2020; docs/method.md section 8).

The keys come from a moving average of the student's encoder and heads, the negatives from a queue of earlier keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csg_train.methods.base import Losses, Student
from csg_train.methods.contrast import StageQueues, ema_update, momentum_copy
from csg_train.methods.contrastive import ContrastiveMethod
from csg_train.methods.settings import QueueSettings
from csg_train.models.teacher import Teacher


class MocoV2(ContrastiveMethod):
    """Contrast with the keys of a momentum encoder, without a teacher."""

    Settings = QueueSettings

    settings: QueueSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: QueueSettings):
        super().__init__(student, teacher, settings)
        self.key_projection = momentum_copy(self.projection)
        self.key_encoder = momentum_copy(student.encoder)
        self.queues = StageQueues(settings.stages, settings.queue)

    def contrast(self, anchors: dict[str, Tensor], second: Tensor) -> tuple[Losses, Losses]:
        with torch.no_grad():
            keys = self.key_projection(self.key_encoder(second))
        return self.queues.contrast(anchors, keys, self.settings.temperature)

    def after_step(self) -> None:
        """Let the keys of the step into the queues, and update the moving averages."""
        self.queues.enqueue()
        ema_update(self.key_projection, self.projection, self.settings.momentum)
        ema_update(self.key_encoder, self.student.encoder, self.settings.momentum)
