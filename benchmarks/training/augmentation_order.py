"""RandAugment before the resize, as published, and after it, as csg has it: CPU time, and how far the pixels differ.

    python -m benchmarks.training.augmentation_order

A photograph as JPEG, decoded, and two views of 224 pixels made of it with the same draws.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from csg.console import show_table
from csg_train.data.rand_augment import RandAugment

SIZES, SIDE, VIEWS = ((384, 216), (640, 480), (1280, 720)), 224, 2
IMAGES, ROUNDS = 60, 7
AUGMENT = RandAugment(operations=1, magnitude=6)


def before(image: Image.Image, to: tuple[int, int]) -> list[Image.Image]:
    """Views as published."""
    return [AUGMENT(image, 1.0).resize(to, Image.Resampling.BILINEAR) for _ in range(VIEWS)]


def after(image: Image.Image, to: tuple[int, int]) -> list[Image.Image]:
    """Views as csg makes them."""
    small = image.resize(to, Image.Resampling.BILINEAR)
    return [AUGMENT(small, to[1] / image.height) for _ in range(VIEWS)]


def views_of(content: bytes, order: Callable[..., list[Image.Image]]) -> tuple[float, np.ndarray]:
    """Milliseconds of CPU time for each image, and all views of one round, float (N, H, W, 3)."""
    times, views = [], []
    for _ in range(ROUNDS):
        torch.manual_seed(0)
        views, started = [], time.process_time()
        for _ in range(IMAGES):
            image = Image.open(BytesIO(content)).convert("RGB")
            views += order(image, (SIDE * image.width // image.height, SIDE))
        times.append(1000 * (time.process_time() - started) / IMAGES)
    return statistics.median(times), np.stack([np.asarray(view, float) for view in views])


def main() -> None:
    """Measure and print."""
    rows = []
    for size in SIZES:
        file = BytesIO()
        Image.fromarray(load_sample_images().images[0]).resize(size).save(file, "JPEG", quality=90)
        (slow, published), (fast, ours) = (views_of(file.getvalue(), order) for order in (before, after))
        plain = np.asarray(Image.open(file).resize(published.shape[2:0:-1], Image.Resampling.BILINEAR), float)
        apart, changed = (float(abs(published - other).mean()) for other in (ours, plain))
        times = (f"{slow:.1f} ms", f"{fast:.1f} ms", f"{slow / fast:.2f}")
        rows.append((f"{size[0]} x {size[1]}", *times, f"{apart:.1f}", f"{changed:.1f}"))
    columns = ("image", "before the resize", "after it", "ratio", "difference", "of a change by")
    show_table(f"{VIEWS} views of an image; differences are means, of 255", columns, rows)


if __name__ == "__main__":
    main()
