"""drpc: Domain Randomization and Pyramid Consistency (Yue et al. 2019; docs/method.md section 8).

    L = mean of L_task over an image's versions + mu * (across + nu * within)

The versions are the image and restyled copies of it. Both consistencies compare features of layer4, pooled on square
grids: `across` is the mean |features of a version - their mean over the versions|, `within` the same for two scales of
one version, a region of the image and the region enlarged to the size of the image.

Published are the two parts (features that depend neither on the style nor on the scale), and 15 auxiliary domains, with
CycleGAN to restyle each image to each of them. Ours are:

- the restyling: Fourier amplitude mixing, which needs no training (FDA, Yang & Soatto 2020). A style is one image of a
  folder that the user names, drawn anew in each step. If the images are real, training uses real images, and the output
  says so.
- the formula of `within`: the region has a half to the whole of the image's sides, is one for a batch and a step, and
  that of one version, drawn in each step; nu is 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csg.card import ClassificationInput
from csg.console import log
from csg.datasets.listing import list_images
from csg.errors import InputError
from csg.images import load
from csg_train.methods.base import Batch, Losses, Method, Student, task_loss
from csg_train.methods.settings import DrpcSettings
from csg_train.models.teacher import Teacher

GRIDS = (1, 2, 4, 8)  # docs/method.md section 8
SMALLEST_SHARE = 0.5
Region = tuple[float, float, float, float]
"""Top, bottom, left and right edge, as shares of the height and of the width."""


class Drpc(Method):
    """Training on restyled versions of each image, whose features are pulled to their mean."""

    Settings = DrpcSettings

    settings: DrpcSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: DrpcSettings):
        super().__init__(student, teacher, settings)
        self.files = style_files(settings.styles, settings.max_styles)
        log(f"drpc: styles from {len(self.files)} images of {settings.styles}; if they are real, this is not zero-shot")
        self.styles: Tensor | None = None

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        (view,) = batch.views
        styles = self._styles(view)
        versions = [view]
        for _ in range(self.settings.versions):
            chosen = torch.randint(len(styles), (len(view),)).to(view.device)
            versions.append(restyle(view, styles[chosen], self.settings.band))
        maps = [self.student.encoder(version) for version in versions]
        task = torch.stack([task_loss(self.student.classify(m), batch.labels) for m in maps]).mean()
        across = pyramid_consistency([m["layer4"] for m in maps])
        losses = {"task": task, "consistency/across": self.settings.weight * across}
        if self.settings.within:
            one = int(torch.randint(len(versions), ()))
            within = self._within(versions[one], maps[one]["layer4"])
            losses["consistency/within"] = self.settings.weight * self.settings.within * within
        return losses, {}

    def _within(self, images: Tensor, layer4: Tensor) -> Tensor:
        """The consistency of a region cut from the images' map with the same region enlarged before the encoder."""
        region = random_region(layer4)
        enlarged = self.student.encoder(enlarge(images, region))["layer4"]
        return pyramid_consistency([crop(layer4, region), enlarged])

    def _styles(self, view: Tensor) -> Tensor:
        """The style images at the size of the views, uint8 (S, H, W, 3)."""
        if self.styles is None:
            height, width = view.shape[1:3]
            spec = ClassificationInput(height=height, width=width, resize_shorter_side=max(height, width))
            self.styles = torch.from_numpy(np.stack([load(file, spec) for file in self.files])).to(view.device)
        return self.styles


def style_files(folder: Path, count: int) -> list[Path]:
    """Up to `count` images below `folder`, evenly spaced in the sorted list; hidden files are passed over.

    Raises:
        InputError: there is no image.
    """
    files = list_images(folder).images if folder.is_dir() else ()
    if not files:
        raise InputError(f"{folder} contains no style image", "name a folder with images: --method drpc:styles=FOLDER")
    return [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files)), dtype=int)]


@torch.no_grad()
def restyle(images: Tensor, styles: Tensor, band: float) -> Tensor:
    """Images with the low-frequency Fourier amplitude of the styles, and their own phases: uint8 (B, H, W, 3)."""
    with torch.autocast(images.device.type, enabled=False):
        content, style = (torch.fft.fft2(x.float(), dim=(1, 2)) for x in (images, styles))
        near = [torch.fft.fftfreq(side, device=images.device).abs() <= band for side in images.shape[1:3]]
        low = (near[0][:, None] & near[1])[None, :, :, None]
        amplitude = torch.where(low, style.abs(), content.abs())
        mixed = torch.fft.ifft2(torch.polar(amplitude, content.angle()), dim=(1, 2)).real
    restyled: Tensor = mixed.round().clamp(0, 255).to(torch.uint8)
    return restyled


def random_region(layer4: Tensor) -> Region:
    """A region that covers whole positions of a map (B, C, H, W): a random share of its sides at a random place."""
    share = float(torch.empty(()).uniform_(SMALLEST_SHARE, 1))
    edges: list[float] = []
    for side in layer4.shape[2:]:
        length = max(1, round(share * side))
        start = int(torch.randint(side - length + 1, ()))
        edges += [start / side, (start + length) / side]
    top, bottom, left, right = edges
    return top, bottom, left, right


def crop(x: Tensor, region: Region) -> Tensor:
    """The region of images or maps (B, C, H, W)."""
    (height, width), (top, bottom, left, right) = x.shape[2:], region
    return x[:, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def enlarge(images: Tensor, region: Region) -> Tensor:
    """The region of images uint8 (B, H, W, 3), at the size of the images, bilinear: uint8 (B, H, W, 3)."""
    pixels = images.permute(0, 3, 1, 2).float()
    grown = F.interpolate(crop(pixels, region), pixels.shape[2:], mode="bilinear", align_corners=False)
    return grown.round().to(torch.uint8).permute(0, 2, 3, 1)


def pyramid_consistency(maps: list[Tensor]) -> Tensor:
    """Mean over grids of the mean distance |pooled - mean over the maps|.

    Args:
        maps: (B, C, H, W) each, of any sizes; grids finer than the smallest side are skipped.
    """
    side = min(min(m.shape[2:]) for m in maps)
    distances = []
    for grid in (g for g in GRIDS if g <= side):
        pooled = torch.stack([F.adaptive_avg_pool2d(m.float(), grid) for m in maps])
        distances.append((pooled - pooled.mean(0, keepdim=True)).abs().mean())
    return torch.stack(distances).mean()
