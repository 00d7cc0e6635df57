"""none ("vanilla"): the task loss alone, the baseline of every table (docs/method.md section 8).

The published baseline trains without augmentation (section 6); `none:augment=true` is a stronger one.
"""

from __future__ import annotations

from csg_train.methods.base import Batch, Losses, Method, task_loss
from csg_train.methods.settings import NoneSettings


class NoneMethod(Method):
    """Fine-tuning of the ImageNet encoder on the synthetic images, with nothing added."""

    Settings = NoneSettings
    takes_features = True
    tuned_setting = None

    settings: NoneSettings

    @property
    def augmented(self) -> bool:
        return self.settings.augment

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        return {"task": task_loss(self.logits(batch), batch.labels)}, {}
