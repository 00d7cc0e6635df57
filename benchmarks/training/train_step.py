"""Where a training step's time goes: csg and none, bf16 and fp32, the loaders alone, and convolutions made faster.

    python -m benchmarks.training.train_step

Random pixels at the embedded recipe's size; medians of one process. Ratios hold within one run only.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from csg.console import show_table
from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg_train.data.crops import Crops
from csg_train.data.loading import StepBatchSampler, batches
from csg_train.data.synthetic_digits import write_digits
from csg_train.data.views import Views
from csg_train.methods.base import Batch
from csg_train.models.fast_layers import DilatedConv2d, FoldingConv2d
from csg_train.recipe import load_recipe
from csg_train.training.command import build_method
from csg_train.training.trainer import make_optimiser

CPU = torch.device("cpu")


def median_ms(work: Callable[[], object], repeats: int = 15, warm_up: int = 3) -> float:
    """Median duration of `work` in milliseconds."""
    times = []
    for _ in range(warm_up + repeats):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[warm_up:])


def step_ms(method_name: str, dtype: torch.dtype | None) -> float:
    """One optimiser step of the embedded recipe on random pixels."""
    recipe = load_recipe("digits", {"method": method_name})
    method = build_method(recipe, 10, CPU).train()
    optimiser = make_optimiser(method, recipe.optim)
    side, images = recipe.data.size, recipe.optim.batch
    pixels = torch.randint(0, 256, (method.views, images, side, side, 3), dtype=torch.uint8)
    batch = Batch(pixels, torch.arange(images) % 10)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            losses, _ = method(batch)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        method.after_step()

    return median_ms(step)


def loader_images_per_s(views: int) -> float:
    """Images a second out of the loader alone, each in `views` views."""
    recipe = load_recipe("digits")
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder, "set"), 1280, 0)
        images = read_classification_dataset([Path(folder, "set")])
        sampler = StepBatchSampler(len(images), recipe.optim.batch, 0, range(len(images) // recipe.optim.batch))
        loaded = batches(Views(images, recipe.data, recipe.augment, views, 0), sampler, "fail", None, False)
        next(loaded)
        started = time.perf_counter()
        count = sum(len(batch.labels) for batch in loaded)
        return count / (time.perf_counter() - started)


def strided_depthwise_ms(dtype: torch.dtype) -> float:
    """Forward and backward of MobileNetV2's first strided depthwise convolution."""
    layer = nn.Conv2d(96, 96, 3, 2, 1, groups=96, bias=False).to(dtype, memory_format=torch.channels_last)
    x = torch.randn(64, 96, 20, 20, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    return median_ms(lambda: layer(x).sum().backward())


def dilated_ms(layer: FoldingConv2d | DilatedConv2d, fast: bool) -> float:
    """Forward and backward of a dilated convolution in bf16 on a 30 x 40 map, as csg trains it or as torch does."""
    layer = layer.to(torch.bfloat16, memory_format=torch.channels_last)
    x = torch.randn(8, layer.in_channels, 30, 40, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    forward = layer if fast else lambda x: nn.Conv2d.forward(layer, x)
    return median_ms(lambda: forward(x).sum().backward())


def scene_loader_images_per_s() -> float:
    """Crops a second out of the loader alone, from scenes of GTA5's size, 1914 x 1052 PNG files."""
    recipe, rng = load_recipe("gta5"), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for kind, shape in (("images", (1052, 1914, 3)), ("labels", (1052, 1914))):
            Path(folder, kind).mkdir()
            noise = rng.integers(7, 14, (*shape[:2], *shape[2:]), dtype=np.uint8) if kind == "images" else None
            for number in range(48):
                pixels = noise if noise is not None else np.full(shape, 7, np.uint8)
                Image.fromarray(pixels).save(Path(folder, kind, f"{number:05d}.png"), compress_level=1)
        scenes = read_segmentation_dataset([folder], "cityscapes19")
        sampler = StepBatchSampler(len(scenes), recipe.optim.batch, 0, range(len(scenes) // recipe.optim.batch))
        loaded = batches(Crops(scenes, recipe.data, recipe.augment, 2, 0), sampler, "fail", None, False)
        next(loaded)
        started = time.perf_counter()
        count = sum(len(batch.labels) for batch in loaded)
        return count / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    rows = []
    for method in ("none", "csg"):
        fp32, bf16 = step_ms(method, None), step_ms(method, torch.bfloat16)
        rows.append((f"step, {method}, batch 64", f"{fp32:.0f} ms", f"{bf16:.0f} ms", f"{fp32 / bf16:.2f}"))
    fp32, bf16 = strided_depthwise_ms(torch.float32), strided_depthwise_ms(torch.bfloat16)
    rows.append(("strided depthwise alone", f"{fp32:.1f} ms", f"{bf16:.1f} ms", f"{fp32 / bf16:.2f}"))
    show_table(f"MobileNetV2, {torch.get_num_threads()} threads", ("", "fp32", "bf16", "fp32 / bf16"), rows)
    layers = {
        "depthwise, 960 channels, rate 4": FoldingConv2d(
            nn.Conv2d(960, 960, 3, padding=4, dilation=4, groups=960, bias=False)
        ),
        "DeepLabv2 branch, 1280 to 19 channels, rate 6": DilatedConv2d(1280, 19, 3, padding=6, dilation=6),
    }
    rows = []
    for name, layer in layers.items():
        plain, ours = dilated_ms(layer, False), dilated_ms(layer, True)
        rows.append((name, f"{plain:.0f} ms", f"{ours:.0f} ms", f"{plain / ours:.2f}"))
    show_table("dilated, forward and backward, bf16", ("", "torch", "csg", "torch / csg"), rows)
    rates = [(f"loader alone, {views} views", f"{loader_images_per_s(views):.0f} images/s") for views in (1, 2)]
    rates.append(("scene loader alone, 2 views", f"{scene_loader_images_per_s():.0f} images/s"))
    show_table("data", ("", "rate"), rates)


if __name__ == "__main__":
    main()
