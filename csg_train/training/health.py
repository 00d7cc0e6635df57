"""Whether a training still makes sense: its weights are finite, and some pixels belong to a class."""

from __future__ import annotations

import torch
from torch import Tensor

from csg.datasets.label_sets import IGNORED
from csg.errors import InputError
from csg_train.distributed import any_rank, rank, said_once
from csg_train.methods.base import Student
from csg_train.training.finite import non_finite
from csg_train.training.run_files import DIVERGED
from csg_train.training.run_folder import Run


class Health:
    """Watches a training; all processes ask together.

    Args:
        run: its folder.
        student: the network that trains.
        images: number of the training images.
        device: that it trains on.
    """

    def __init__(self, run: Run, student: Student, *, images: int, device: torch.device):
        self.run, self.student, self.images = run, student, images
        self.counted = torch.zeros((), dtype=torch.bool, device=device)

    def saw(self, labels: Tensor) -> None:
        """Note whether labels, of images (B,) or of pixels (B, H, W), belong to a class."""
        self.counted |= (labels != IGNORED).any() if labels.ndim > 1 else True

    def require_labels(self) -> None:
        """Raise InputError if no pixel of the steps so far belonged to a class: nothing was learned."""
        if any_rank(bool(self.counted))[0]:
            return
        with said_once():
            raise InputError(
                f"no pixel of the {self.images} training images belongs to a class: all are ignored",
                "check the masks and the label set with `csg data check`",
            )

    def require_finite(self, step: int) -> None:
        """Raise InputError if the student's weights or running statistics are not finite in any process."""
        if not any_rank(bool(non_finite(self.student.state_dict())))[0]:
            return
        with said_once():
            raise self.diverged(step, "weights")

    def diverged(self, step: int, what: str) -> InputError:
        """The error of a training that is over since `what` is not finite; the first process notes it in the run."""
        message = f"training diverged: at step {step} {what} are not finite"
        if rank() == 0:
            self.run.write(DIVERGED, f"{message}\n")
        return InputError(message, "lower the learning rates (--set optim.lr_backbone=...) or the method's weight")
