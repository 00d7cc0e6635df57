"""How far the answers of a quantised graph are from those of the float32 graph, on calibration images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import ModelProto

from csg_export.parity_images import evenly_spaced
from csg_export.runners import Predictions, onnx_runner

BATCH = 4
SMALLEST = 1e-30
COUNTED = 0.75
"""Share of the images that count, those of the smallest errors."""


class Int8Judge:
    """Compares graphs with a float32 graph on a sample of the calibration images."""

    def __init__(self, model: ModelProto, images: Sequence[np.ndarray]):
        """Run the float32 graph.

        Args:
            model: the float32 graph.
            images: batches of prepared images, uint8 (B, H, W, 3).
        """
        self.images = images
        run = onnx_runner(model)
        self.expected = [_centred(run(batch)) for batch in images]

    def error(self, model: ModelProto) -> float:
        """Mean squared difference of an image's logits from the float32 graph's, as a share of their variance.

        The mean over three quarters of the images, without those of the largest errors: a few whose values are many
        times larger than the others' would decide alone. Logits that differ by the same number for all classes are
        equal: they mean the same probabilities.
        """
        run = onnx_runner(model)
        pairs = zip(self.images, self.expected, strict=True)
        errors_N = np.sort(np.concatenate([_shares(run(batch), expected) for batch, expected in pairs]))
        if not np.isfinite(errors_N).all():
            return float("inf")
        return float(errors_N[: math.ceil(COUNTED * len(errors_N))].mean())


def _shares(predictions: Predictions, expected: np.ndarray) -> np.ndarray:
    """The error of each image, (N,)."""
    axes = tuple(range(1, expected.ndim))
    noise_N = ((_centred(predictions) - expected) ** 2).sum(axes, dtype=np.float64)
    return np.asarray(noise_N / np.maximum((expected**2).sum(axes, dtype=np.float64), SMALLEST))


def _centred(predictions: Predictions) -> np.ndarray:
    logits_NK = predictions.logits_NK
    return np.asarray(logits_NK - logits_NK.mean(1, keepdims=True))


def sample_of(batches: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """At most `count` of the images, evenly spaced, in small batches of equal size."""
    images = [image for batch in batches for image in batch]
    return list(_batched(evenly_spaced(images, count)))


def _batched(images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    start = 0
    for stop in range(1, len(images) + 1):
        if stop == len(images) or stop == start + BATCH or images[stop].shape != images[start].shape:
            yield np.stack(images[start:stop])
            start = stop
