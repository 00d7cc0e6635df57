"""Where a training step's time goes: csg and none, bf16 and fp32, the loader alone, and the strided depthwise backward.

    python benchmarks/train_step.py

Random pixels at the embedded recipe's size; medians of one process. Ratios hold within one run only.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from csg.console import show_table
from csg.realset import read_labelled
from csg_train.data.loading import Steps, load_batches
from csg_train.data.synthetic import write_digits
from csg_train.data.views import Views
from csg_train.methods import Batch
from csg_train.recipe import load_recipe
from csg_train.train import build_method
from csg_train.trainer import make_optimiser

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
    recipe = load_recipe("digits", {"method": method_name}, [])
    method = build_method(recipe, 10, None, CPU).train()
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
    recipe = load_recipe("digits", {}, [])
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder, "set"), 1280, 0)
        images = read_labelled([Path(folder, "set")])
        steps = Steps(len(images), recipe.optim.batch, 0, 0, len(images) // recipe.optim.batch)
        batches = load_batches(Views(images, recipe.data, recipe.augment, views, 0), steps, "fail", None, False)
        next(batches)
        started = time.perf_counter()
        count = sum(len(batch.labels) for batch in batches)
        return count / (time.perf_counter() - started)


def strided_depthwise_ms(dtype: torch.dtype) -> float:
    """Forward and backward of MobileNetV2's first strided depthwise convolution."""
    layer = nn.Conv2d(96, 96, 3, 2, 1, groups=96, bias=False).to(dtype, memory_format=torch.channels_last)
    x = torch.randn(64, 96, 20, 20, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    return median_ms(lambda: layer(x).sum().backward())


def main() -> None:
    """Measure and print."""
    rows = []
    for method in ("none", "csg"):
        fp32, bf16 = step_ms(method, None), step_ms(method, torch.bfloat16)
        rows.append((f"step, {method}, batch 64", f"{fp32:.0f} ms", f"{bf16:.0f} ms", f"{fp32 / bf16:.2f}"))
    fp32, bf16 = strided_depthwise_ms(torch.float32), strided_depthwise_ms(torch.bfloat16)
    rows.append(("strided depthwise alone", f"{fp32:.1f} ms", f"{bf16:.1f} ms", f"{fp32 / bf16:.2f}"))
    show_table(f"MobileNetV2, {torch.get_num_threads()} threads", ("", "fp32", "bf16", "fp32 / bf16"), rows)
    rates = [(f"loader alone, {views} views", f"{loader_images_per_s(views):.0f} images/s") for views in (1, 2)]
    show_table("data", ("", "rate"), rates)


if __name__ == "__main__":
    main()
