"""csg: Contrastive Syn-to-Real Generalization (ICLR 2021; docs/method.md sections 3 to 5).

    L = L_task + lambda * sum over stages of L_NCE

The anchor is the student's q-view of an image, the positive key the frozen teacher's k-view, the negatives are a queue
of earlier keys for each stage. Both are pooled by A-pool; the weights for the teacher's map come from the student's
map of the same view. In segmentation both views are of the same crop, each patch of an 8 x 8 grid is an anchor, and
its positive is the teacher's patch at the same position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csg_train.methods.base import Losses, Student
from csg_train.methods.contrast import StageQueues, ema_update, momentum_copy
from csg_train.methods.contrastive import ContrastiveMethod
from csg_train.methods.settings import CsgSettings
from csg_train.models.batch_norm import frozen_running_stats
from csg_train.models.teacher import Teacher


class Csg(ContrastiveMethod):
    """Contrast with the frozen teacher: projection heads, their moving averages, and a queue for each stage."""

    Settings = CsgSettings
    needs_teacher = True

    settings: CsgSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: CsgSettings):
        super().__init__(student, teacher, settings)
        self.projection.requires_grad_(settings.train_heads)
        self.key_projection = momentum_copy(self.projection)
        self.queues = StageQueues(settings.stages, settings.queue)

    def contrast(self, anchors: dict[str, Tensor], second: Tensor) -> tuple[Losses, Losses]:
        return self.queues.contrast(anchors, self.keys(second), self.settings.temperature)

    @torch.no_grad()
    def keys(self, k_view: Tensor) -> dict[str, Tensor]:
        """Positive keys of each stage, unit vectors: the teacher's maps, weighted by the student's attention."""
        attention_maps = None
        if self.settings.apool:
            with frozen_running_stats(self.student.encoder):
                attention_maps = self.student.encoder(k_view)
        vectors: dict[str, Tensor] = self.key_projection(self.teacher(k_view), attention_maps)
        return vectors

    def after_step(self) -> None:
        """Let the keys of the step into the queues, and update the moving average of the heads.

        The average is due once a step, before the keys are computed. At the first step both heads are equal, so
        updating after each step is the same sequence.
        """
        self.queues.enqueue()
        ema_update(self.key_projection, self.projection, self.settings.momentum)
