"""What csg, simclr and moco-v2 share: projection heads on chosen stages, and InfoNCE between two views.

    L = L_task + lambda * sum over stages of InfoNCE(student's first view, key of the second view)

They share the stages, pooling, heads, temperature and lambda, so that a comparison shows what the frozen teacher
adds (docs/method.md section 8).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from csg_train.methods.base import Batch, Losses, Method, Student, task_loss
from csg_train.methods.contrast import Projection
from csg_train.methods.settings import ContrastiveSettings
from csg_train.models.encoder_families import RECTIFIED, family_of
from csg_train.models.teacher import Teacher


class ContrastiveMethod(Method):
    """The task loss on the first view, and a contrastive loss between the two views at each stage."""

    Settings = ContrastiveSettings
    trainings = ("full", "lp-ft", "lora")
    views = 2

    settings: ContrastiveSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: ContrastiveSettings):
        super().__init__(student, teacher, settings)
        channels: dict[str, int] = {stage: student.encoder.channels[stage] for stage in settings.stages}
        pooling = settings.attention if settings.apool else "mean"
        by = settings.apool_by or ("relu" if family_of(student.encoder.name) in RECTIFIED else "norm")
        self.projection = Projection(channels, pooling, settings.mlp, settings.grid, by)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().head_parameters()
        yield from (parameter for parameter in self.projection.parameters() if parameter.requires_grad)

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        first, second = batch.views
        maps = self.student.encoder(first)
        losses = {"task": task_loss(self.student.classify(maps), batch.labels)}
        contrast, ranked_first = self.contrast(self.projection(maps), second)
        losses |= {f"contrast/{stage}": self.settings.weight * loss for stage, loss in contrast.items()}
        return losses, {f"positive_ranked_first/{stage}": share for stage, share in ranked_first.items()}

    def contrast(self, anchors: dict[str, Tensor], second: Tensor) -> tuple[Losses, Losses]:
        """The contrastive loss of each stage.

        Args:
            anchors: unit vectors of the first view, float32 (B * grid * grid, D), for each stage.
            second: the second view, uint8 (B, H, W, 3).

        Returns:
            The loss of each stage, unweighted, and the share of anchors whose positive is the most similar key.
        """
        raise NotImplementedError
