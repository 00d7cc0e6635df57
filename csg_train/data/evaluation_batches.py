"""Images for measuring, read ahead in batches, with the pixels every other stage uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from csg.card import ClassificationInput
from csg.errors import InputError
from csg.images import load

BATCH = 64


def image_batches(
    paths: Sequence[Path], spec: ClassificationInput, unreadable: Callable[[InputError], None] | None = None
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
