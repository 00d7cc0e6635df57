"""Batches of images to measure on, prepared as in every other stage and read ahead."""

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
    """Prepared images, in order and a batch at a time.

    Args:
        paths: image files.
        spec: how images are prepared.
        unreadable: called for an image that cannot be read, which is then skipped; None: the error is raised.

    Yields:
        The indices of the images in `paths`, and their pixels, uint8 (B, H, W, 3).
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
            good = [(start + offset, image) for offset, image in enumerate(images) if image is not None]
            if good:
                indices, arrays = zip(*good, strict=True)
                yield list(indices), np.stack(arrays)
