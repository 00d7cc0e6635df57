"""The student measured in PyTorch on labelled real images, with the pixels every other stage uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from csg.card import ImageInput
from csg.console import progress, say
from csg.errors import InputError
from csg.images import load
from csg.metrics import ClassScores, class_scores
from csg.realset import LabelledImages
from csg_train.models.classifier import Classifier

BATCH = 64


def image_batches(
    paths: Sequence[Path], spec: ImageInput, unreadable: Callable[[InputError], None] | None = None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Prepared images, uint8 (B, H, W, 3), with their places in `paths`, in order and a batch at a time.

    Args:
        unreadable: called for an image that can't be read, which is then left out; None: the error is raised.
    """

    def read(path: Path) -> np.ndarray | None:
        try:
            return load(path, spec)
        except InputError as error:
            if unreadable is None:
                raise
            unreadable(error)
            return None

    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(paths), BATCH):
            images = list(pool.map(read, paths[start : start + BATCH]))
            good = [(start + place, image) for place, image in enumerate(images) if image is not None]
            if good:
                places, arrays = zip(*good, strict=True)
                yield list(places), np.stack(arrays)


@dataclass(frozen=True)
class Measured:
    """What a student made of a set of images.

    skipped: images left out because they could not be read. embeddings: float32 (N, C), pooled layer4.
    true, predicted: class indices (N,).
    """

    scores: ClassScores
    skipped: int
    embeddings: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


@torch.inference_mode()
def evaluate_student(
    student: Classifier, images: LabelledImages, spec: ImageInput, device: torch.device, skip_unreadable: bool = False
) -> Measured:
    """The student's predictions and embeddings, in fp32, and their scores.

    Raises:
        InputError: an image can't be read and `skip_unreadable` is off, or none can.
    """
    training = student.training
    student.eval()
    errors: list[InputError] = []

    def note(error: InputError) -> None:
        errors.append(error)
        say(f"left out: {error.what}")

    true, predicted, embeddings = [], [], []
    with progress() as bar:
        task = bar.add_task(f"measuring on {images.name}", total=len(images), note="")
        for places, batch in image_batches(images.paths, spec, note if skip_unreadable else None):
            maps = student.encoder(torch.from_numpy(batch).to(device))
            embeddings.append(student.embed(maps).cpu().numpy())
            predicted.append(student.classify(maps).argmax(1).cpu().numpy())
            true.append(images.labels[places])
            bar.advance(task, len(places))
    student.train(training)
    if not true:
        raise InputError(f"none of the {len(images)} images of {images.name} can be read", "check the data")
    all_true, all_predicted = np.concatenate(true), np.concatenate(predicted)
    scores = class_scores(all_true, all_predicted, len(images.classes))
    return Measured(scores, len(errors), np.concatenate(embeddings), all_true, all_predicted)
