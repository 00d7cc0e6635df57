"""What csg, simclr and moco-v2 share: projection heads on chosen stages, and InfoNCE between two views.

    L = L_task + lambda * sum over stages of InfoNCE(student's first view, key of the second view)

They share the stages, pooling, heads, temperature and lambda, so that a comparison shows what the frozen teacher
adds (docs/method.md section 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from csg_train.methods.base import Batch, Losses, Method, MethodSettings, Student, task_loss
from csg_train.methods.contrast import Projection
from csg_train.models.teacher import Teacher

StageName = Literal["layer1", "layer2", "layer3", "layer4"]


class ContrastiveSettings(MethodSettings):
    """Defaults of docs/method.md section 3, and the switches of the paper's ablation."""

    weight: Annotated[float, Field(ge=0)] = 0.1
    """lambda, the weight of the contrastive loss: 0.1 in classification, 75 in segmentation."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """tau, 0.07 in paper and published code."""
    stages: Annotated[tuple[StageName, ...], Field(min_length=1)] = ("layer3", "layer4")
    """G, the stages whose maps are contrasted; layer3 and layer4 are best in the paper's ablation."""
    apool: bool = True
    """Pool maps by attention (docs/method.md section 4); otherwise by their mean."""
    attention: Literal["attached", "detached"] = "attached"
    """Let the gradient flow through the weights of A-pool, as in the published recipes, or not (docs/method.md
    section 6). The weights of a key never have a gradient, except in simclr, which trains both views."""
    mlp: bool = True
    """Projection heads with a hidden layer; otherwise one linear layer."""
    grid: Annotated[int, Field(ge=1)] = 1
    """Patches on each side of a map, each with its own anchor: 1 in classification, 8 in segmentation
    (docs/method.md section 5)."""


class QueueSettings(ContrastiveSettings):
    """Settings of methods with a queue of keys."""

    queue: Annotated[int, Field(ge=1)] = 65536
    """K, the number of keys in the queue of each stage: 65536 in the paper, fewer for small data."""
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999
    """m, the momentum of the moving averages that compute the keys (docs/method.md section 2)."""


class ContrastiveMethod(Method):
    """The task loss on the first view, and a contrastive loss between the two views at each stage."""

    Settings = ContrastiveSettings
    segmentation_defaults = {"weight": 75.0, "grid": 8}  # docs/method.md sections 3 and 5  # noqa: RUF012
    views = 2

    settings: ContrastiveSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: ContrastiveSettings):
        super().__init__(student, teacher, settings)
        channels: dict[str, int] = {stage: student.encoder.channels[stage] for stage in settings.stages}
        pooling = settings.attention if settings.apool else "mean"
        self.projection = Projection(channels, pooling, settings.mlp, settings.grid)

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
