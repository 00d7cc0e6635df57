"""simclr: contrast of two views of the student, without a teacher (Chen et al. 2020; docs/method.md section 8).

The two views of an image are each other's positives, the other images of the batch are the negatives.
"""

from __future__ import annotations

from torch import Tensor

from csg_train.methods.base import Losses
from csg_train.methods.contrast import nt_xent
from csg_train.methods.contrastive import ContrastiveMethod


class SimClr(ContrastiveMethod):
    """Contrast of two views within the batch; gradients flow through both."""

    def contrast(self, anchors: dict[str, Tensor], second: Tensor) -> tuple[Losses, Losses]:
        keys = self.projection(self.student.encoder(second))
        losses, ranked_first = {}, {}
        for stage, anchor_BD in anchors.items():
            losses[stage], ranked_first[stage] = nt_xent(anchor_BD, keys[stage], self.settings.temperature)
        return losses, ranked_first
