"""Parity: the exported graph in ONNX Runtime against the student in PyTorch, on the same prepared images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from csg.card import ImageInput, Parity
from csg.errors import PromiseError
from csg_train.evaluate import image_batches
from csg_train.models.classifier import Classifier

IMAGES = 512
# Allowed: the largest difference of a logit, as a share of the largest logit, and the share of equal top-1 classes
# among the images that are no ties.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
AGREEMENT = {"fp32": 0.998, "fp16": 0.99}


@torch.inference_mode()
def measure_parity(
    student: Classifier, model: bytes, paths: Sequence[Path], spec: ImageInput, precision: str, source: str
) -> Parity:
    """Compare on up to 512 of `paths`, evenly spread; images that can't be read are passed over.

    Raises:
        PromiseError: the difference is above the tolerance, or a logit is not finite.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(IMAGES, len(paths)), dtype=int)]
    expected, got = [], []
    for _, images in image_batches(chosen, spec, unreadable=lambda error: None):
        expected.append(student(torch.from_numpy(images)).numpy())
        got.append(session.run(["logits"], {"image": images})[0])
    if not expected:
        raise PromiseError(f"parity can't be measured: no image of {source} can be read", "check the data")
    return judge(np.concatenate(expected), np.concatenate(got), precision, source)


def judge(expected: np.ndarray, got: np.ndarray, precision: str, source: str) -> Parity:
    """Parity of logits, float (N, classes), held against the tolerance of `precision`.

    The agreement reported is that of all images. The agreement promised is that of the images which PyTorch
    decides by more than the tolerance: which class wins a tie says nothing about the graph.

    Raises:
        PromiseError: it does not hold.
    """
    tolerance = TOLERANCE[precision] * max(1.0, float(np.abs(expected).max()))
    equal = expected.argmax(1) == got.argmax(1)
    second, first = np.partition(expected, -2, axis=1)[:, -2:].T
    decided = first - second > tolerance
    agreement = float(equal.mean())
    difference = float(np.abs(expected - got).max())
    kept = difference <= tolerance and equal[decided].sum() >= AGREEMENT[precision] * decided.sum()
    if not kept:  # NaN fails too
        raise PromiseError(
            f"the {precision} graph differs from PyTorch on {len(got)} images of {source}: "
            f"top-1 agreement {agreement:.2%} (at least {AGREEMENT[precision]:.1%} promised), "
            f"largest difference {difference:.4g} (at most {tolerance:.4g} promised)",
            "nothing was written; export without --fp16" if precision == "fp16" else "nothing was written",
        )
    return Parity(images=len(got), source=source, agreement=agreement, max_abs_diff=difference, tolerance=tolerance)
