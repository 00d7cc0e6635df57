"""drpc: Domain Randomization and Pyramid Consistency (Yue et al. 2019; docs/method.md section 8).

    L = mean of L_task over an image's versions + mu * mean |pooled features of a version - their mean over versions|

The versions are the image and restyled copies of it. Each step restyles anew, with images from a folder that the user
names: if they are real, training uses real images, and the output says so. Published drpc restyles with CycleGAN; here
it is Fourier amplitude mixing, which needs no training (FDA, Yang & Soatto 2020). The features are those of layer4,
pooled on square grids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from csg.card import ClassificationInput
from csg.console import log
from csg.datasets.listing import list_images
from csg.errors import InputError
from csg.files import absolute
from csg.images import load
from csg_train.methods.base import Batch, Losses, Method, MethodSettings, Student, task_loss
from csg_train.models.teacher import Teacher

GRIDS = (1, 2, 4, 8)  # docs/method.md section 8


class DrpcSettings(MethodSettings):
    """Settings of drpc."""

    styles: Path
    """Folder of style images, searched with its subfolders."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """mu, the weight of the consistency."""
    versions: Annotated[int, Field(ge=1)] = 1
    """Restyled copies of each image."""
    band: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Half the side of the square of low frequencies that take the amplitude of the style, as a share of the side of
    the image."""
    max_styles: Annotated[int, Field(ge=1)] = 256
    """Style images kept in memory."""

    @field_validator("styles")
    @classmethod
    def _absolute(cls, styles: Path) -> Path:
        """So that the run can be resumed from another folder."""
        return absolute(styles)


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
        consistency = pyramid_consistency([m["layer4"] for m in maps])
        return {"task": task, "consistency": self.settings.weight * consistency}, {}

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


def pyramid_consistency(maps: list[Tensor]) -> Tensor:
    """Mean over grids of the mean distance |pooled - mean over versions|; grids finer than the map are skipped."""
    stacked = torch.stack([m.float() for m in maps])  # (versions, B, C, H, W)
    distances = []
    for grid in (g for g in GRIDS if g <= min(stacked.shape[-2:])):
        pooled = torch.stack([F.adaptive_avg_pool2d(version, grid) for version in stacked])
        distances.append((pooled - pooled.mean(0, keepdim=True)).abs().mean())
    return torch.stack(distances).mean()
