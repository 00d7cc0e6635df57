"""Self-contrast without a teacher: SimCLR (Chen et al. 2020) and MoCo v2 (He et al. 2020) beside the task loss.

    L = L_task + lambda * sum over stages of InfoNCE(student's view, another view of the student's own)

Stages, pooling, heads, temperature and lambda are those of csg, so that a comparison shows what the frozen
teacher adds (docs/method.md section 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from csg_train.methods.base import Batch, Method, Student, task_loss
from csg_train.methods.contrast import StageQueues, ema_update, momentum_copy, nt_xent
from csg_train.methods.csg import DENSE, ContrastSettings, Share, projection_for
from csg_train.models.backbones import Teacher


class SimClr(Method):
    """Two views of the student are each other's positives; the other images of the batch are the negatives."""

    Settings = ContrastSettings
    for_scenes = DENSE
    views = 2

    def __init__(self, student: Student, teacher: Teacher | None, settings: ContrastSettings):
        super().__init__(student, teacher, settings)
        self.settings = settings
        self.projection = projection_for(student, settings)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().head_parameters()
        yield from self.projection.parameters()

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        first, second = (self.student.encoder(view) for view in batch.views)
        losses = {"task": task_loss(self.student.classify(first), batch.labels)}
        figures = {}
        pairs = self.projection(first), self.projection(second)
        for stage in pairs[0]:
            loss, figures[f"positive_ranked_first/{stage}"] = nt_xent(
                pairs[0][stage], pairs[1][stage], self.settings.temperature
            )
            losses[f"contrast/{stage}"] = self.settings.weight * loss
        return losses, figures


class MocoSettings(ContrastSettings):
    """queue: negatives kept, 65536 in the paper. momentum: m of the key encoder and its heads, 0.999 there."""

    queue: Annotated[int, Field(ge=1)] = 65536
    momentum: Share = 0.999


class MocoV2(Method):
    """The keys come from a moving average of the student, the negatives from a queue of earlier keys."""

    Settings = MocoSettings
    for_scenes = DENSE
    views = 2

    def __init__(self, student: Student, teacher: Teacher | None, settings: MocoSettings):
        super().__init__(student, teacher, settings)
        self.settings = settings
        self.projection = projection_for(student, settings)
        self.key_projection = momentum_copy(self.projection)
        self.key_encoder = momentum_copy(student.encoder)
        self.queues = StageQueues(settings.stages, settings.queue)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().head_parameters()
        yield from self.projection.parameters()

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        q_view, k_view = batch.views
        maps = self.student.encoder(q_view)
        with torch.no_grad():
            keys = self.key_projection(self.key_encoder(k_view))
        losses = {"task": task_loss(self.student.classify(maps), batch.labels)}
        contrast, ranked = self.queues.contrast(self.projection(maps), keys, self.settings.temperature)
        losses |= {f"contrast/{stage}": self.settings.weight * loss for stage, loss in contrast.items()}
        return losses, {f"positive_ranked_first/{stage}": share for stage, share in ranked.items()}

    def after_step(self) -> None:
        self.queues.enqueue()
        ema_update(self.key_projection, self.projection, self.settings.momentum)
        ema_update(self.key_encoder, self.student.encoder, self.settings.momentum)
