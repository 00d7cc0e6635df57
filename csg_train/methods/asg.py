"""asg and asg-l2o: Automated Synthetic-to-real Generalization (Chen et al. 2020; docs/method.md section 8).

    L = L_task + lambda * KL(teacher's ImageNet prediction || student's), mean over the batch

The student's ImageNet prediction is that of its encoder under the frozen ImageNet classifier, from the globally pooled
layer4 in both tasks, as published. asg uses the recipe's learning rates; asg-l2o lets an online policy choose one for
each stage (csg_train/methods/rate_policy.py). In its published segmentation the weighted imitation of a step is at
most 9: above, lambda shrinks for that step (`cap`). The hand-set rates and classification are published without a cap.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from csg_train.distributed import mean_over_processes
from csg_train.methods.base import Batch, Losses, Method, Student, task_loss
from csg_train.methods.rate_policy import RatePolicy
from csg_train.methods.settings import AsgL2oSettings, AsgSettings
from csg_train.models.teacher import Teacher


class Asg(Method):
    """The task loss and the imitation of the ImageNet network's predictions."""

    Settings = AsgSettings
    trainings = ("full", "lp-ft", "lora")
    needs_teacher = True

    settings: AsgSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: AsgSettings):
        super().__init__(student, teacher, settings)
        self.teacher.check_classifier()
        self.policy = RatePolicy(student.encoder, settings.window) if settings.learned else None
        self.seen: list[Tensor] = []
        self.kept: dict[int, Tensor] = {}  # what `target` has given, by image

    @property
    def augmented(self) -> bool:
        return self.settings.augment

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        (view,) = batch.views
        maps = self.student.encoder(view)
        imitation = kl_of_predictions(self.target(batch), self.teacher.classify(maps, self.settings.pooled))
        losses = {"task": task_loss(self.student.classify(maps), batch.labels)}
        losses["imitation"] = capped(self.settings.weight * imitation, self.settings.cap)
        self.seen.append(torch.stack([losses["task"], imitation]).detach())
        figures = {f"rate/{name}": rate for name, rate in self.policy.rates().items()} if self.policy else {}
        return losses, figures

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """The teacher's ImageNet logits, computed once for images that are the same in every pass."""
        indices = batch.indices if self.settings.pooled else None
        if indices and all(index in self.kept for index in indices):
            return torch.stack([self.kept[index] for index in indices])
        logits = self.teacher.classify(self.teacher(batch.views[0]), self.settings.pooled)
        if indices:
            self.kept |= zip(indices, logits, strict=True)
        return logits

    def learning_rate(self, group: str, backbone: float, heads: float) -> float:
        rates = self.policy.rates() if self.policy else {}
        return heads * float(rates[group]) if group in rates else super().learning_rate(group, backbone, heads)

    def after_step(self) -> None:
        """Show the policy the losses of the step."""
        if self.policy:
            task, imitation = mean_over_processes(torch.stack(self.seen).mean(0)).tolist()
            self.policy.observe(task, imitation, self.student.encoder)
        self.seen.clear()


class AsgL2o(Asg):
    """asg with layer-wise learning rates chosen by an online policy."""

    Settings = AsgL2oSettings


def capped(loss: Tensor, cap: float | None) -> Tensor:
    """A loss of at most `cap`; beyond it the gradient shrinks by the same factor and keeps its direction."""
    return loss if cap is None else loss * (cap / loss.detach().clamp_min(cap))


def kl_of_predictions(target: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)) of (B, classes), mean over the batch."""
    return F.kl_div(
        F.log_softmax(logits.float(), 1), F.log_softmax(target.float(), 1), reduction="batchmean", log_target=True
    )
