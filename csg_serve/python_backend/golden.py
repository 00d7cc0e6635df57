"""The golden answers of a version: a few images, and what PyTorch answered for them. A model that differs is refused.

`csg deploy` copies this file and golden.npz beside model.py, where csg can't be imported: it stands alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .difference import difference
from .scheduling import Run

GOLDEN_ARRAYS = "golden.npz"
"""The golden answers beside the scripts of a model that takes tensors (`csg.golden.golden_arrays`)."""

WRONG = "answers wrongly"
"""In every message about an answer that differs from PyTorch's."""


@dataclass(frozen=True)
class GoldenArrays:
    """One image, and PyTorch's answer."""

    name: str
    """What the image shows."""

    tolerance: float
    """Logits: maximum absolute difference. Label maps: maximum share of pixels of another class."""

    pixels: np.ndarray
    """The prepared image, uint8 (1, H, W, 3)."""

    expected: np.ndarray
    """Logits float32 (1, K), or label map uint8 (1, H, W)."""

    def check(self, answer: np.ndarray) -> None:
        """Compare one answer, (K,) or (H, W), with PyTorch's.

        Raises:
            RuntimeError: it differs by more than the tolerance.
        """
        if wrong := difference(self.name, answer, self.expected[0], self.tolerance):
            raise RuntimeError(f"{WRONG}: {wrong}")


def read_golden(file: Path) -> list[GoldenArrays]:
    """Read the golden answers of a version; none if it was deployed from a bundle of an older csg.

    Raises:
        RuntimeError: the file can't be read, or holds other arrays.
    """
    if not file.exists():
        return []
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = [
                GoldenArrays(
                    name=str(arrays[f"name_{index}"]),
                    tolerance=float(arrays[f"tolerance_{index}"]),
                    pixels=arrays[f"pixels_{index}"],
                    expected=arrays[f"expected_{index}"],
                )
                for index in range(sum(name.startswith("name_") for name in arrays))
            ]
        for one in found:
            if one.pixels.dtype != np.uint8 or one.pixels.ndim != 4 or len(one.pixels) != 1 or len(one.expected) != 1:
                raise ValueError(f"the arrays of {one.name} have other shapes")
    except Exception as error:  # a damaged archive fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(f"{file.name} can't be read: {reason}; deploy the bundle again") from None
    return found


def check_answers(run: Run, golden: list[GoldenArrays], max_batch: int) -> None:
    """Compute the golden images, in batches where they have one size, and compare the first output with PyTorch's.

    Raises:
        RuntimeError: an answer differs by more than its tolerance.
    """
    by_shape = defaultdict(list)
    for one in golden:
        by_shape[one.pixels.shape].append(one)
    for images in by_shape.values():
        for start in range(0, len(images), max_batch):
            batch = images[start : start + max_batch]
            answers = run(np.concatenate([one.pixels for one in batch]))[0]
            if len(answers) != len(batch):
                raise RuntimeError(f"{WRONG}: {len(batch)} images have {len(answers)} answers")
            for one, answer in zip(batch, answers, strict=True):
                one.check(answer)
