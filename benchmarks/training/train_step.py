"""Times of training steps and of their parts, and what each of the fast layers gains (docs/performance-notes.md).

    python -m benchmarks.training.train_step

Random pixels at the size of the embedded recipe; medians of one process. Compare figures of one run only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from csg.console import show_table
from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg_train.data.crops import Crops
from csg_train.data.loading import StepBatchSampler, batches
from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS
from csg_train.data.views import Views
from csg_train.methods.base import Batch
from csg_train.models.fast_layers import DilatedConv2d, FoldingConv2d, use_fast_layers
from csg_train.recipe import SegmentationData, load_recipe
from csg_train.training.command import build_method
from csg_train.training.memory import keep_freed_memory
from csg_train.training.optimizer import make_optimiser

CPU = torch.device("cpu")


def median_ms(work: Callable[[], object], repeats: int = 15, warm_up: int = 3) -> float:
    """Median duration of `work` in milliseconds."""
    times = []
    for _ in range(warm_up + repeats):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[warm_up:])


STEPS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("digits", {"method": "csg", "model.freeze_batch_norm": True}, 10),
    ("pacs", {"method": "csg"}, 7),
    ("pacs", {"method": "csg", "model.backbone": "timm:tf_efficientnet_lite0"}, 7),
    ("camvid", {"method": "csg", "model.freeze_batch_norm": True, "optim.batch": 4}, 11),
)
"""Steps that are measured with plain and with fast layers: recipe, settings, classes."""


def step_ms(name: str, settings: dict[str, Any], classes: int, dtype: torch.dtype | None) -> float:
    """One optimiser step of a recipe on random pixels."""
    recipe = load_recipe(name, settings)
    method = build_method(recipe, classes, CPU).train()
    optimiser = make_optimiser(method, recipe.optim)
    data, images = recipe.data, recipe.optim.batch
    height, width = data.crop if isinstance(data, SegmentationData) else (data.size, data.size)
    pixels = torch.randint(0, 256, (method.views, images, height, width, 3), dtype=torch.uint8)
    labels = torch.arange(images) % classes
    if isinstance(data, SegmentationData):
        labels = torch.randint(0, classes, (images, height, width), dtype=torch.uint8)
    batch = Batch(pixels, labels)

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
        SYNTHETIC_DIGITS.write(Path(folder, "set"), 1280, 0)
        images = read_classification_dataset([Path(folder, "set")])
        sampler = StepBatchSampler(len(images), recipe.optim.batch, 0, range(len(images) // recipe.optim.batch))
        loaded = batches(Views(images, recipe.data, recipe.augment, views, 0), sampler, "fail", None, False)
        next(loaded)
        started = time.perf_counter()
        count = sum(len(batch.labels) for batch in loaded)
        return count / (time.perf_counter() - started)


@contextlib.contextmanager
def plain_layers(plain: bool) -> Iterator[None]:
    """Networks built inside the block have plain or fast layers."""
    os.environ["CSG_PLAIN_LAYERS"] = str(int(plain))
    try:
        yield
    finally:
        del os.environ["CSG_PLAIN_LAYERS"]


def forward_backward_ms(layer: nn.Module, channels: int, sides: tuple[int, int], autocast: bool) -> float:
    """Forward and backward of a layer in train mode, on a batch of 8 maps in channels_last layout."""
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(8, channels, *sides).to(memory_format=torch.channels_last).requires_grad_()

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(x)
        y.float().sum().backward()

    return median_ms(work)


def frozen_block(fast: bool, widths: tuple[int, int] = (256, 256), relu6: bool = False) -> nn.Module:
    """A convolution with a frozen batch norm, and a ReLU6 if asked, as the encoder has them or plain."""
    block = nn.Sequential(nn.Conv2d(*widths, 1, bias=False), nn.BatchNorm2d(widths[1]).eval())
    if relu6:
        block.append(nn.ReLU6(inplace=True))
    if fast:
        use_fast_layers(block)
    return block


def depthwise(fast: bool, channels: int, stride: int = 1, dilation: int = 1, kernel: int = 3) -> nn.Module:
    """A depthwise convolution, as the encoder has it or plain."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
    return FoldingConv2d(conv) if fast else conv


def deeplab_branch(fast: bool) -> nn.Module:
    """A branch of the DeepLabv2 head at rate 6, as the head has it or plain."""
    return (DilatedConv2d if fast else nn.Conv2d)(1280, 19, 3, padding=6, dilation=6)


clamped_block = functools.partial(frozen_block, widths=(24, 144), relu6=True)
dilated_depthwise = functools.partial(depthwise, channels=960, dilation=4)
LAYERS: dict[str, tuple[Callable[[bool], nn.Module], int, tuple[int, int], bool]] = {
    "frozen batch norm, 1 x 1, 256 channels, fp32": (frozen_block, 256, (56, 56), False),
    "frozen batch norm and ReLU6, 1 x 1, 24 to 144 channels, fp32": (clamped_block, 24, (56, 56), False),
    "frozen batch norm and ReLU6, 1 x 1, 24 to 144 channels, bf16": (clamped_block, 24, (56, 56), True),
    "strided depthwise, 96 channels, bf16": (functools.partial(depthwise, channels=96, stride=2), 96, (20, 20), True),
    "5 x 5 depthwise, 672 channels, bf16": (functools.partial(depthwise, channels=672, kernel=5), 672, (6, 6), True),
    "dilated depthwise, 960 channels, rate 4, fp32": (dilated_depthwise, 960, (30, 40), False),
    "dilated depthwise, 960 channels, rate 4, bf16": (dilated_depthwise, 960, (30, 40), True),
    "DeepLabv2 branch, rate 6, fp32": (deeplab_branch, 1280, (30, 40), False),
    "DeepLabv2 branch, rate 6, bf16": (deeplab_branch, 1280, (30, 40), True),
}
"""Each fast layer: how it is built, its input channels, the sides of its map, and whether under bf16 autocast."""


def fast_layer_rows() -> list[tuple[str, str, str, str]]:
    """Times of each layer, and of whole steps, with plain and with fast layers, and their ratio."""
    times: dict[str, tuple[float, float]] = {}
    for name, (build, channels, sides, autocast) in LAYERS.items():
        plain, fast = (forward_backward_ms(build(kind), channels, sides, autocast) for kind in (False, True))
        times[name] = (plain, fast)
    for recipe, settings, classes in STEPS:
        for name, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
            both = []
            for plain_too in (True, False):
                with plain_layers(plain_too):
                    both.append(step_ms(recipe, settings, classes, dtype))
            backbone = settings.get("model.backbone", load_recipe(recipe).model.backbone)
            times[f"whole step, {recipe}, csg, {backbone}, {name}"] = (both[0], both[1])
    return [(name, f"{a:.1f} ms", f"{b:.1f} ms", f"{a / b:.2f}") for name, (a, b) in times.items()]


def kept_memory_rows() -> list[tuple[str, str, str, str]]:
    """Times of whole steps that give freed memory back, or keep it, and their ratio: processes of one thread in turn,
    since glibc adapts to what a process did before."""
    rows = []
    for method in ("none", "csg"):
        times: dict[bool, list[float]] = {False: [], True: []}
        for keep in (False, True) * 3:
            words = [sys.executable, "-m", "benchmarks.training.train_step", "one", method, *(["keep"] if keep else [])]
            done = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
            times[keep].append(float(done.stdout))
        back, kept = statistics.median(times[False]), statistics.median(times[True])
        name = f"whole step, pacs, {method}, bf16, one thread"
        rows.append((name, f"{back:.0f} ms", f"{kept:.0f} ms", f"{back / kept:.2f}"))
    return rows


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
    if sys.argv[1:2] == ["one"]:
        if "keep" in sys.argv:
            keep_freed_memory()
        print(step_ms("pacs", {"method": sys.argv[2]}, 7, torch.bfloat16))
        return
    rows = []
    for method in ("none", "csg"):
        fp32, bf16 = (step_ms("digits", {"method": method}, 10, dtype) for dtype in (None, torch.bfloat16))
        rows.append((f"step, {method}, batch 64", f"{fp32:.0f} ms", f"{bf16:.0f} ms", f"{fp32 / bf16:.2f}"))
    show_table(f"MobileNetV2, {torch.get_num_threads()} threads", ("", "fp32", "bf16", "fp32 / bf16"), rows)
    show_table("fast layers, forward and backward", ("", "plain", "fast", "plain / fast"), fast_layer_rows())
    show_table("freed memory", ("", "given back", "kept", "given back / kept"), kept_memory_rows())
    rates = [(f"loader alone, {views} views", f"{loader_images_per_s(views):.0f} images/s") for views in (1, 2)]
    rates.append(("scene loader alone, 2 views", f"{scene_loader_images_per_s():.0f} images/s"))
    show_table("data", ("", "rate"), rates)


if __name__ == "__main__":
    main()
