"""Networks small enough to be exported in a second, with their images."""

import itertools

import numpy as np
import torch
from torch import nn

from csg.card import ClassificationInput
from csg.provenance import Int8Calibration
from csg_export.onnx_graph import to_onnx
from csg_export.runners import onnx_runner
from csg_train.models.segmenter import Segmenter

SPEC = ClassificationInput(height=24, width=24, resize_shorter_side=24)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
CALIBRATION = Int8Calibration(source="x", images=6, method="minmax", fp32_first_last=False)


class Chain(nn.Module):
    """Four convolutions; the one at `loud`, if any, has values beyond fp16's range, and the next one undoes it."""

    def __init__(self, loud=None, widths=(3, 6, 8, 6, 5)):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        if loud is not None:
            with torch.no_grad():
                self.layers[loud].weight *= 1e6
                self.layers[loud + 1].weight /= 1e6

    def forward(self, images):
        x = (images.float().permute(0, 3, 1, 2) - 120) / 60
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.mean((2, 3))


class DenseEncoder(nn.Module):
    """One convolution of stride 8: the logits of neighbouring positions differ much."""

    channels, strides, pads, example_size = {"layer4": 6}, {"layer4": 8}, False, (128, 192)

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 8, 8)

    def forward(self, images):
        return {"layer4": self.layer(images.float().permute(0, 3, 1, 2) / 60 - 2)}


def dense(align_corners):
    """A segmenter of three classes."""
    torch.manual_seed(0)
    network = Segmenter(DenseEncoder(), 3, "deeplabv2", align_corners).eval().requires_grad_(False)
    for branch in network.head.branches:
        branch.weight.mul_(20)
    return network


def graph(network):
    return to_onnx(network.eval(), SPEC)


def run(model, images=IMAGES):
    return onnx_runner(model)(images).logits
