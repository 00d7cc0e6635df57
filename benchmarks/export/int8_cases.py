"""Networks with their images, for benchmarks of int8: ImageNet networks, and runs of csg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from csg.card import ClassificationInput
from csg.datasets.classification import ClassificationDataset
from csg.images import load_segmentation
from csg.provenance import ClassificationEvaluation
from csg_export.parity_images import ParityImages, evenly_spaced
from csg_export.sources import Source, from_run
from csg_export.torchvision_source import from_torchvision
from csg_train.models.backbones import Normalise, normalisation
from csg_train.models.weights import load_weights
from csg_train.tasks import Predict
from csg_train.training.run_data import real_images
from csg_train.training.run_folder import Run

TIMM = (
    *("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "swin_tiny_patch4_window7_224", "convnext_tiny"),
    *("efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv4_conv_small", "regnety_004"),
)
TORCHVISION = ("mobilenet_v2", "resnet18", "resnet50")
IMAGENET = (*TORCHVISION, *TIMM)


@dataclass(frozen=True)
class Case:
    """A network, and the images to calibrate and to measure it on."""

    source: Source
    """The network; `real` are all real images."""
    labels: Sequence[np.ndarray]
    """What is right for each real image: its class, int (), or the class of each pixel, uint8 (H, W)."""


@dataclass(frozen=True)
class Images:
    """Images of ImageNet's classes."""

    real: ParityImages
    """To measure on."""
    labels: np.ndarray
    """Their ImageNet classes, int (N,)."""
    calibration: ParityImages
    """To calibrate on."""


def run_case(path: Path) -> Case:
    """The student of a run, with all its real images; those of a segmenter have multiples of 8 as sides."""
    run = Run(path)
    source, images = from_run(run), real_images(run)
    assert images is not None
    source = replace(source, real=ParityImages(images.name, source.spec, images.paths))
    if isinstance(images, ClassificationDataset):
        return Case(source, tuple(images.labels))
    sizes = [load_segmentation(file, source.spec).original for file in images.paths]
    return Case(source, [images.load_labels(index, size) for index, size in enumerate(sizes)])


def has_weights(name: str, lite0: Path | None) -> bool:
    """Whether an ImageNet network gets its real weights; the others are random."""
    return name == "mobilenet_v2" or (name == "tf_efficientnet_lite0" and lite0 is not None)


def imagenet_case(name: str, real: Path, calibration: Path, lite0: Path | None, limit: int) -> Case:
    """An ImageNet network by name, with at most `limit` images; of random weights, PyTorch's own answers are right."""
    source = _imagenet_network(name, lite0)
    assert isinstance(source.spec, ClassificationInput)
    images = _read_images(real, calibration, source.spec, limit)
    batches = list(images.real.batches())
    with torch.inference_mode():
        said = np.concatenate([source.network(torch.from_numpy(batch)).argmax(1) for batch in batches])
    labels = images.labels if has_weights(name, lite0) else said

    def evaluation(classes: np.ndarray) -> ClassificationEvaluation:
        share = float((classes == labels).mean())
        same = {"accuracy": share, "mean_class_accuracy": share}
        return ClassificationEvaluation(dataset=images.real.name, images=len(labels), **same)

    def measure(predict: Predict) -> ClassificationEvaluation:
        return evaluation(np.concatenate([predict(torch.from_numpy(batch)).logits.argmax(1) for batch in batches]))

    complete = {"real": images.real, "training": lambda: images.calibration, "measure": measure}
    return Case(replace(source, **complete, evaluations=(evaluation(said),)), tuple(labels))


def _read_images(real: Path, calibration: Path, spec: ClassificationInput, limit: int) -> Images:
    """The images of both folders, at most `limit` real ones and 256 to calibrate on."""
    folders = sorted(folder.name for folder in real.iterdir() if folder.is_dir())
    files = evenly_spaced(sorted(real.glob("*/*")), limit)
    labels = np.array([2 * folders.index(file.parent.name) for file in files])
    photographs = evenly_spaced(sorted(calibration.glob("*/*")), 256)
    return Images(ParityImages(real.name, spec, files), labels, ParityImages(calibration.name, spec, photographs))


def _imagenet_network(name: str, lite0: Path | None) -> Source:
    """A network as a source without images."""
    weights = None if has_weights(name, lite0) else "none"
    if name in TORCHVISION:
        return from_torchvision(name, weights)
    plain = from_torchvision("mobilenet_v2", "none")
    torch.manual_seed(0)
    model = timm.create_model(name, **({"img_size": 224} if name.startswith("vit") else {})).eval()
    if weights is None:
        model.load_state_dict(load_weights(f"timm:{name}", lite0))
    network: nn.Module = plain.network
    network.model, network.normalise = model, Normalise(*normalisation(f"timm:{name}"))
    return replace(plain, name=name, stem=name, network=network)
