"""CSG: Contrastive Syn-to-Real Generalization (ICLR 2021; docs/method.md sections 3 to 5).

    L = L_task + lambda * sum over stages of L_NCE

For an image's two views: the anchor is the student's q-view, the positive key the frozen teacher's k-view,
the negatives a queue of earlier keys, one queue a stage. Both are pooled by A-pool; the weights for the
teacher's map come from the student's map of the same view. In segmentation both views are of the same crop, each
patch of an 8 x 8 grid is an anchor, and its positive key is the teacher's patch at the same place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from csg_train.methods.base import Batch, Method, MethodSettings, Student, task_loss
from csg_train.methods.contrast import Projection, StageQueues, ema_update, momentum_copy
from csg_train.models.backbones import Teacher
from csg_train.models.fast_layers import statistics_kept

Stage = Literal["layer1", "layer2", "layer3", "layer4"]
Share = Annotated[float, Field(ge=0, le=1)]


class ContrastSettings(MethodSettings):
    """Defaults of docs/method.md section 3, and the switches of the paper's ablation.

    weight: lambda, 0.1 for classification. temperature: tau, 0.07 in paper and code. stages: G. apool: pool by
    attention, otherwise by the mean. mlp: projection heads with a hidden layer. grid: patches a side, each with an
    anchor of its own (docs/method.md section 5).
    """

    weight: Annotated[float, Field(ge=0)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 0.07
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("layer3", "layer4")
    apool: bool = True
    mlp: bool = True
    grid: Annotated[int, Field(ge=1)] = 1


DENSE = {"weight": 75.0, "grid": 8}  # docs/method.md sections 3 and 5


class CsgSettings(ContrastSettings):
    """queue: K, 65536 in the paper; shrink it for small data. momentum: m of the heads' moving average.

    train_heads: off, the projection heads keep their initial weights, as in the published segmentation
    (docs/method.md section 7).
    """

    queue: Annotated[int, Field(ge=1)] = 65536
    momentum: Share = 0.999
    train_heads: bool = True


def projection_for(student: Student, settings: ContrastSettings) -> Projection:
    """Projection heads on the chosen stages of the student's encoder."""
    channels = student.encoder.channels
    return Projection(
        {stage: channels[stage] for stage in settings.stages}, settings.apool, settings.mlp, settings.grid
    )


class Csg(Method):
    """Student, frozen teacher, projection heads, their moving averages, and the queues."""

    Settings = CsgSettings
    for_scenes = DENSE
    views = 2
    needs_teacher = True

    def __init__(self, student: Student, teacher: Teacher | None, settings: CsgSettings):
        super().__init__(student, teacher, settings)
        self.settings = settings
        self.projection = projection_for(student, settings).requires_grad_(settings.train_heads)
        self.key_projection = momentum_copy(self.projection)
        self.queues = StageQueues(settings.stages, settings.queue)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().head_parameters()
        if self.settings.train_heads:
            yield from self.projection.parameters()

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        q_view, k_view = batch.views
        maps = self.student.encoder(q_view)
        losses = {"task": task_loss(self.student.classify(maps), batch.labels)}
        settings = self.settings
        contrast, ranked = self.queues.contrast(self.projection(maps), self.keys(k_view), settings.temperature)
        losses |= {f"contrast/{stage}": settings.weight * loss for stage, loss in contrast.items()}
        return losses, {f"positive_ranked_first/{stage}": share for stage, share in ranked.items()}

    @torch.no_grad()
    def keys(self, k_view: Tensor) -> dict[str, Tensor]:
        """Positive keys, unit vectors (B, 128) for each stage: the teacher's maps under the student's attention."""
        attending = None
        if self.settings.apool:
            with statistics_kept(self.student.encoder):
                attending = self.student.encoder(k_view)
        vectors: dict[str, Tensor] = self.key_projection(self.teacher(k_view), attending)
        return vectors

    def after_step(self) -> None:
        """The step's keys enter the queues, and the key heads follow the heads.

        The moving average is due once a step before the keys are computed; at the first step both heads are
        equal, so updating after each step is the same sequence.
        """
        self.queues.enqueue()
        ema_update(self.key_projection, self.projection, self.settings.momentum)
