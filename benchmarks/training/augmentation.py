"""RandAugment: CPU time a view, beside torchvision's; and before the resize, as published, or after it, as csg has it.

    python -m benchmarks.training.augmentation

The second table is of a photograph as JPEG, which is decoded, and of two views of 224 pixels of it: CPU time, and how
far the pixels of the same draws differ.
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
from torchvision.transforms import v2

from csg.console import show_table
from csg_train.data.rand_augment import RandAugment

SIDES, DRAWS = (40, 224), 3000
SIZES, SIDE, VIEWS = ((384, 216), (640, 480), (1280, 720)), 224, 2
IMAGES, ROUNDS = 60, 7
AUGMENT = RandAugment(operations=1, magnitude=6)


def draw_ms(augment: Callable[[Image.Image], Image.Image], image: Image.Image) -> float:
    """Milliseconds of CPU time for a draw."""
    torch.manual_seed(0)
    started = time.process_time()
    for _ in range(DRAWS):
        augment(image)
    return 1000 * (time.process_time() - started) / DRAWS


def draw_rows() -> list[tuple[str, str, str, str]]:
    """The time of a draw at each side, ours and torchvision's."""
    rows, theirs = [], v2.RandAugment(1, 6, num_magnitude_bins=31)
    for side in SIDES:
        image = Image.fromarray(load_sample_images().images[0]).resize((side, side))
        ours, other = draw_ms(lambda image: AUGMENT(image, 1.0), image), draw_ms(theirs, image)
        rows.append((f"{side} x {side}", f"{ours:.3f} ms", f"{other:.3f} ms", f"{other / ours:.2f}"))
    return rows


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
    show_table("RandAugment, one draw", ("image", "csg", "torchvision", "torchvision / csg"), draw_rows())
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
