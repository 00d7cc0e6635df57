"""Parity: the exported graph in ONNX Runtime against the student in PyTorch, on the same prepared images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from csg.card import ImageInput, Parity, SceneInput
from csg.errors import InputError, PromiseError
from csg.images import decode, prepare_scene
from csg_export.onnx_graph import INPUT
from csg_train.data.images import image_batches
from csg_train.methods.base import Student

IMAGES, SCENES = 512, 64
# Allowed: the largest difference of a logit, as a share of the largest logit, and the share of equal classes among the
# images, or pixels, that are no ties.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
AGREEMENT = {"fp32": 0.998, "fp16": 0.99}


@dataclass
class Tally:
    """What has been compared so far.

    decided: images, or pixels, which PyTorch decides by more than the tolerance, and which of them agree; which class
    wins a tie says nothing about the graph.
    """

    precision: str
    images: int = 0
    compared: int = 0
    equal: int = 0
    decided: int = 0
    decided_equal: int = 0
    difference: float = 0.0
    largest: float = 1.0

    def add(self, images: int, expected: np.ndarray, got: np.ndarray, classes: np.ndarray) -> None:
        """Compare logits, float (N, K), and the classes chosen, (N,), of so many images."""
        self.largest = max(self.largest, float(np.abs(expected).max()))
        second, first = np.partition(expected, -2, axis=1)[:, -2:].T
        equal, decided = expected.argmax(1) == classes, first - second > self.tolerance
        self.images += images
        self.compared += len(equal)
        self.equal += int(equal.sum())
        self.decided += int(decided.sum())
        self.decided_equal += int((equal & decided).sum())
        self.difference = max(self.difference, float(np.abs(expected - got).max()), key=_nan_last)

    @property
    def tolerance(self) -> float:
        """The largest difference of a logit that is allowed."""
        return TOLERANCE[self.precision] * self.largest

    def judge(self, source: str) -> Parity:
        """The parity, held against the tolerance. The agreement reported is that of all, ties included.

        Raises:
            PromiseError: it does not hold.
        """
        agreement, least = self.equal / self.compared, AGREEMENT[self.precision]
        if not (self.difference <= self.tolerance and self.decided_equal >= least * self.decided):  # NaN fails too
            raise PromiseError(
                f"the {self.precision} graph differs from PyTorch on {self.images} images of {source}: "
                f"agreement {agreement:.2%} (at least {least:.1%} promised), largest difference "
                f"{self.difference:.4g} (at most {self.tolerance:.4g} promised)",
                "nothing was written" + ("; export without --fp16" if self.precision == "fp16" else ""),
            )
        return Parity(
            images=self.images,
            source=source,
            agreement=agreement,
            max_abs_diff=self.difference,
            tolerance=self.tolerance,
        )


def _nan_last(value: float) -> tuple[bool, float]:
    return value != value, value


@torch.inference_mode()
def measure_parity(
    student: Student, model: bytes, paths: Sequence[Path], spec: ImageInput | SceneInput, precision: str, source: str
) -> Parity:
    """Compare on up to 512 of `paths` (64 scenes), evenly spread; images that can't be read are passed over.

    Raises:
        PromiseError: the difference is above the tolerance, or a logit is not finite.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    limit = IMAGES if isinstance(spec, ImageInput) else SCENES
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(limit, len(paths)), dtype=int)]
    tally = Tally(precision)
    for images in _prepared(chosen, spec):
        expected = student(torch.from_numpy(images)).numpy()
        got, *label_map = session.run([output.name for output in session.get_outputs()], {INPUT: images})
        classes = label_map[0] if label_map else got.argmax(1)
        tally.add(len(images), _rows(expected), _rows(got), classes.ravel())
    if not tally.compared:
        raise PromiseError(f"parity can't be measured: no image of {source} can be read", "check the data")
    return tally.judge(source)


def _prepared(paths: Sequence[Path], spec: ImageInput | SceneInput) -> Iterator[np.ndarray]:
    """Batches of prepared images, uint8 (B, H, W, 3); scenes, whose sizes differ, one at a time."""
    if isinstance(spec, ImageInput):
        yield from (images for _, images in image_batches(paths, spec, unreadable=lambda error: None))
        return
    for path in paths:
        try:
            yield prepare_scene(decode(path), spec).pixels[None]
        except InputError:
            continue


def _rows(logits: np.ndarray) -> np.ndarray:
    """(B, K) or (B, K, H, W) to a row for each image or pixel, (N, K)."""
    return np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])
