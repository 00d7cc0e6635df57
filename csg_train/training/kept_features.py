"""What a frozen encoder gives for each training image, computed once and kept in memory.

Where images are not augmented, the encoder gives the same for an image in every pass. It is computed in batches of the
size that a step has, so that the losses are those of a training without kept features, bit for bit.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from csg.console import log, progress_bar
from csg_train.distributed import world_size
from csg_train.methods.base import Batch
from csg_train.models.classifier import Classifier
from csg_train.training.optimizer import TrainingPrecision
from csg_train.training.schedule import Schedule
from csg_train.training.training_batches import InOrder, TrainingBatches

MIB = 2**20


class FeatureBatches:
    """The batches of a run: of features while the encoder is frozen, if they can be kept, then of images.

    Args:
        images: the batches of images.
        schedule: of the training.
        precision: of the forward pass.
    """

    def __init__(self, images: TrainingBatches, schedule: Schedule, precision: TrainingPrecision):
        self.images, self.precision = images, precision
        self.accumulate = schedule.optim.accumulate
        training = images.recipe.model.training
        self.frozen_until = schedule.steps if training == "frozen" else schedule.probe
        self.possible = images.fixed and images.method.takes_features

    def of(self, steps: range) -> Generator[Batch]:
        """The batches of these steps; raises as `TrainingBatches.of`."""
        frozen = range(steps.start, min(steps.stop, self.frozen_until))
        if self.possible and len(frozen) * self.images.batch > len(self.images.images):  # more than one pass
            yield from self._from_memory(frozen)
            steps = range(frozen.stop, steps.stop)
        if steps:
            with closing(self.images.of(steps)) as batches:
                yield from batches

    def _from_memory(self, steps: range) -> Generator[Batch]:
        features, labels = self._computed()
        for keys in self.images.sampler(steps):
            chosen = torch.tensor([index for _, index in keys])
            views, labels_of = (kept[chosen].to(self.images.device) for kept in (features, labels))
            yield Batch(views[None], labels_of, embedded=True)

    @torch.no_grad()
    def _computed(self) -> tuple[Tensor, Tensor]:
        """Embeddings (N, C) and labels (N,) of all images, on the CPU; each process has all of them."""
        student, count = self.images.method.student, len(self.images.images)
        assert isinstance(student, Classifier)
        device, precision = self.images.device, self.precision
        features, labels = list[Tensor](), list[Tensor]()
        training = student.training
        student.eval()
        order = InOrder(count, self.images.batch // world_size(), seed=0)
        with (
            progress_bar("computing features", count) as advance,
            closing(self.images.loaded(order)) as batches,
            torch.autocast(device.type, precision.dtype, enabled=precision.name != "fp32"),
        ):
            for batch in batches:
                parts = batch.split(self.accumulate)
                features += [student.embed(student.encoder(part.views[0])).cpu() for part in parts]
                labels.append(batch.labels.cpu())
                advance(len(batch.labels))
        student.train(training)
        kept = torch.cat(features)[:count]
        log(f"features of {count} images are kept: computed once, {kept.nbytes / MIB:.1f} MiB in memory")
        return kept, torch.cat(labels)[:count]
