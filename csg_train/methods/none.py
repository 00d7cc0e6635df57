"""none ("vanilla"): the task loss alone, the baseline of every table (docs/method.md section 8)."""

from __future__ import annotations

from csg_train.methods.base import Batch, Losses, Method, task_loss


class NoneMethod(Method):
    """Fine-tuning of the ImageNet encoder on the synthetic images, with nothing added."""

    tuned_setting = None

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        return {"task": task_loss(self.student(batch.views[0]), batch.labels)}, {}
