"""The values in the masks of a dataset, counted in parallel and kept in the cache, by the content of the mask."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from csg.console import progress_bar
from csg.datasets.mask_values import VALUES
from csg.datasets.scan import CHUNK
from csg.datasets.scan_cache import ContentRow, open_cache
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError

KIND = "mask values 1"
"""What the cache calls the counts; the number is increased when `read_mask` reads other values."""


def count_values(scenes: SegmentationDataset, indices: Sequence[int]) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Count the pixels of each value in masks.

    Args:
        scenes: the dataset.
        indices: of the masks to count.

    Returns:
        The number of pixels of each value, int64 (256,), by the index of the mask; and, for masks that can't be read,
        why.
    """
    counts: dict[int, np.ndarray] = {}
    problems: dict[int, str] = {}
    digests = {index: scenes.scan.masks.digest(index) for index in indices}
    with (
        open_cache() as cache,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar("counting the pixels of the classes", len(indices)) as advance,
    ):
        for start in range(0, len(indices), CHUNK):
            chunk = indices[start : start + CHUNK]
            known = cache.contents(KIND, [digests[index] for index in chunk])
            new = [index for index in chunk if digests[index] not in known]
            for index, found in zip(new, pool.map(lambda index: _count(scenes, index), new), strict=True):
                if isinstance(found, str):
                    problems[index] = found
                else:
                    known[digests[index]] = _packed(found)
                    cache.add_content(ContentRow(digests[index], KIND, _packed(found)))
            counts |= {index: _unpacked(known[digests[index]]) for index in chunk if index not in problems}
            advance(len(chunk))
    return counts, problems


def _count(scenes: SegmentationDataset, index: int) -> np.ndarray | str:
    try:
        return scenes.value_counts(index)
    except InputError as error:
        return error.message


def _packed(counts: np.ndarray) -> bytes:
    return zlib.compress(counts.astype(np.int64).tobytes())


def _unpacked(row: bytes) -> np.ndarray:
    return np.frombuffer(zlib.decompress(row), np.int64, VALUES)
