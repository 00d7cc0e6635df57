"""CSG: Contrastive Syn-to-Real Generalization (ICLR 2021; method.md sections 3 and 4).

    L = L_task + lambda * sum over stages of L_NCE

For an image's two views: the anchor is the student's q-view, the positive key the frozen teacher's k-view,
the negatives a queue of earlier keys, one queue a stage. Both are pooled by A-pool; the weights for the
teacher's map come from the student's map of the same view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from csg_train.contrast import KeyQueue, a_pool, attention, ema_update, info_nce, momentum_copy, projection_head
from csg_train.methods.base import Batch, Method, MethodSettings, task_loss
from csg_train.models.backbones import Encoder
from csg_train.models.classifier import Classifier

Stage = Literal["layer1", "layer2", "layer3", "layer4"]


class CsgSettings(MethodSettings):
    """Defaults of method.md section 3.

    weight: lambda, 0.1 for classification. temperature: tau, 0.07 in paper and code. queue: K, 65536 in the
    paper; shrink it for small data. momentum: m of the heads' moving average. stages: G.
    """

    weight: Annotated[float, Field(ge=0)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 0.07
    queue: Annotated[int, Field(ge=1)] = 65536
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("layer3", "layer4")


class Csg(Method):
    """Student, frozen teacher, projection heads, their moving averages, and the queues."""

    Settings = CsgSettings
    views = 2
    needs_teacher = True

    def __init__(self, student: Classifier, teacher: Encoder | None, settings: CsgSettings):
        super().__init__(student, teacher, settings)
        assert teacher is not None
        self.teacher = [teacher]  # in a list: no submodule, so neither trained nor saved
        self.settings = settings
        channels = student.encoder.channels
        self.heads = nn.ModuleDict({stage: projection_head(channels[stage]) for stage in settings.stages})
        self.key_heads = momentum_copy(self.heads)
        self.queues = nn.ModuleDict({stage: KeyQueue(settings.queue) for stage in settings.stages})
        self.fresh_keys: dict[str, list[Tensor]] = {stage: [] for stage in settings.stages}

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().head_parameters()
        yield from self.heads.parameters()

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        q_view, k_view = batch.views
        maps = self.student.encoder(q_view)
        losses = {"task": task_loss(self.student.classify(maps), batch.labels)}
        figures = {}
        keys = self.keys(k_view)
        for stage, head in self.heads.items():
            anchor_BD = F.normalize(head(a_pool(maps[stage], attention(maps[stage]))).float(), dim=1)
            queue_KD = cast(KeyQueue, self.queues[stage]).keys
            loss, figures[f"positive_ranked_first/{stage}"] = info_nce(
                anchor_BD, keys[stage], queue_KD, self.settings.temperature
            )
            losses[f"contrast/{stage}"] = self.settings.weight * loss
            self.fresh_keys[stage].append(keys[stage])
        return losses, figures

    @torch.no_grad()
    def keys(self, k_view: Tensor) -> dict[str, Tensor]:
        """Positive keys, unit vectors (B, 128) for each stage: the teacher's maps under the student's attention."""
        student_maps, teacher_maps = self.student.encoder(k_view), self.teacher[0](k_view)
        keys = {}
        for stage, head in cast(nn.ModuleDict, self.key_heads).items():
            pooled_BC = a_pool(teacher_maps[stage], attention(student_maps[stage]))
            keys[stage] = F.normalize(head(pooled_BC).float(), dim=1)
        return keys

    def after_step(self) -> None:
        """The step's keys enter the queues, and the key heads follow the heads.

        The moving average is due once a step before the keys are computed; at the first step both heads are
        equal, so updating after each step is the same sequence.
        """
        for stage, queue in self.queues.items():
            cast(KeyQueue, queue).enqueue(torch.cat(self.fresh_keys[stage]))
            self.fresh_keys[stage].clear()
        ema_update(self.key_heads, self.heads, self.settings.momentum)
