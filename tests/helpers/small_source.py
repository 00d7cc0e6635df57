"""Networks to export without a run: random weights, noise for images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from csg.card import ClassificationInput, ClassSpec, Normalisation, SegmentationInput
from csg_export.parity_images import ParityImages
from csg_export.sources import Source
from tests.helpers.small_networks import Chain
from tests.helpers.tiny_bundle import PROVENANCE

SIDE = 24


class SmallSegmenter(nn.Module):
    """One convolution: logits (B, 3, H, W) of images (B, H, W, 3)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return self.layer(images.float().permute(0, 3, 1, 2) / 255)


def noise(spec, batch=4):
    """Two batches of noise."""
    random = np.random.default_rng(0)
    return ParityImages(
        "noise", spec, prepared=tuple(random.integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8) for _ in range(2))
    )


def classifier(network=None, classes=("a", "b", "c", "d", "e"), **changes):
    """A classifier to export; by default four convolutions and five classes."""
    spec = ClassificationInput(height=SIDE, width=SIDE, resize_shorter_side=SIDE)
    source = Source(
        stem="small",
        name="small",
        task="classification",
        network=(network or Chain()).eval().requires_grad_(False),
        spec=spec,
        classes=ClassSpec(tuple(classes)),
        normalisation=Normalisation(mean=(0, 0, 0), std=(1, 1, 1)),
        provenance=PROVENANCE,
        real=noise(spec),
        training=lambda: noise(spec),
    )
    return replace(source, **changes)


def segmenter(**changes):
    """A segmenter of three classes to export, of any size."""
    spec = SegmentationInput()
    classes = ClassSpec(("red", "green", "blue"), "rgb", ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    images = noise(spec, 1)
    source = replace(classifier(SmallSegmenter()), task="segmentation", spec=spec, classes=classes)
    return replace(source, **{"real": images, "training": lambda: images} | changes)
