"""Results that depend on the content of a file alone: computed in parallel, once, and kept in the cache."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from csg.console import progress_bar
from csg.datasets.dataset_scan import FileSummary
from csg.datasets.mask_values import VALUES
from csg.datasets.scan import CHUNK
from csg.datasets.scan_cache import open_cache
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError
from csg.images import decode

VALUE_COUNTS = "mask values 1"
"""What the cache calls the counts of a mask; its number is increased when `read_mask` reads other values."""
DECODES = "decodes 1"
"""What the cache calls it that an image can be decoded."""


def count_values(scenes: SegmentationDataset, indices: Sequence[int]) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Count the pixels of each value in masks.

    Args:
        scenes: the dataset.
        indices: of the masks to count.

    Returns:
        The number of pixels of each value, int64 (256,), by the index of the mask; and, for masks that can't be read,
        why.
    """

    def count(index: int) -> bytes:
        return zlib.compress(scenes.value_counts(index).astype(np.int64).tobytes())

    rows, problems = _compute(VALUE_COUNTS, count, scenes.scan.masks, indices)
    return {index: np.frombuffer(zlib.decompress(row), np.int64, VALUES) for index, row in rows.items()}, problems


def find_damaged(paths: Sequence[Path], files: FileSummary, indices: Sequence[int]) -> dict[int, str]:
    """Decode images, and say why some can't be decoded, by index.

    Args:
        paths: image files.
        files: what their scan has found.
        indices: of the images to decode.
    """

    def decodes(index: int) -> bytes:
        decode(paths[index])
        return b""

    return _compute(DECODES, decodes, files, indices)[1]


def _compute(
    kind: str, compute: Callable[[int], bytes], files: FileSummary, indices: Sequence[int]
) -> tuple[dict[int, bytes], dict[int, str]]:
    """What `compute` gives for files, or the cache has; and the messages of the InputErrors that it raises."""

    def tried(index: int) -> bytes | str:
        try:
            return compute(index)
        except InputError as error:
            return error.message

    results: dict[int, bytes] = {}
    problems: dict[int, str] = {}
    with (
        open_cache() as cache,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar("decoding", len(indices)) as advance,
    ):
        for start in range(0, len(indices), CHUNK):
            chunk = indices[start : start + CHUNK]
            known = cache.get(kind, [files.digest(index) for index in chunk])
            results |= {index: known[digest] for index in chunk if (digest := files.digest(index)) in known}
            new = [index for index in chunk if index not in results]
            for index, result in zip(new, pool.map(tried, new), strict=True):
                if isinstance(result, str):
                    problems[index] = result
                else:
                    results[index] = result
                    cache.put(kind, files.digest(index), result)
            advance(len(chunk))
    return results, problems
