"""An unmodified classifier of torchvision, as a network to export."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from csg.card import ClassificationInput, ClassSpec, Normalisation
from csg.errors import CsgError, InputError, UsageError, one_line
from csg.images import prepare
from csg.provenance import Provenance
from csg_export.parity_images import ParityImages
from csg_export.sources import TORCHVISION, Source, own_versions
from csg_train.models.backbones import PLAIN, Normalise
from csg_train.models.state_dicts import read_state_dict
from csg_train.models.weights import load_weights
from csg_train.models.weights_licence import pretrained_weights, torchvision_weights

PHOTOGRAPHS = "crops of scikit-learn's photographs"


class _WithNormalisation(nn.Module):
    """A torchvision classifier that takes uint8 (B, H, W, 3) and normalises the pixels itself."""

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.normalise, self.model = Normalise(mean, std), model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalise(images))
        return logits


def from_torchvision(name: str, weights: str | None = None) -> Source:
    """An ImageNet classifier of torchvision, compared and calibrated on crops of two photographs.

    Args:
        name: of the classifier.
        weights: a file, or "none" for random weights; None: torchvision's best.

    Raises:
        UsageError: torchvision has no such classifier.
        InputError: the weights can't be downloaded or read, or belong to another model.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        close = difflib.get_close_matches(name, torchvision.models.list_models(module=torchvision.models), 3)
        raise UsageError(
            f"torchvision has no ImageNet classifier {name!r}",
            f"did you mean {', '.join(close)}?" if close else "see torchvision.models.list_models()",
        )
    row = PLAIN[name].weights if name in PLAIN else torchvision.models.get_model_weights(name).DEFAULT
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # how the random weights are drawn
        model = torchvision.models.get_model(name).eval()
    if weights != "none":
        _load_weights(model, name, row.url, weights)
    preset = row.transforms()
    side, mean, std = preset.crop_size[0], tuple(preset.mean), tuple(preset.std)
    shorter = max(side, preset.resize_size[0])
    spec = ClassificationInput(height=side, width=side, resize_shorter_side=shorter, jpeg_scaling=True)
    crops = _photographs(spec)
    return Source(
        stem=f"{TORCHVISION}-{name}",
        name=name,
        task="classification",
        network=_WithNormalisation(model, mean, std).eval(),
        spec=spec,
        classes=ClassSpec(tuple(row.meta["categories"])),
        normalisation=Normalisation(mean=mean, std=std),
        provenance=_provenance(name, row.url, weights),
        real=crops,
        training=lambda: crops,
        weights=pretrained_weights(name, weights) if weights else torchvision_weights(row),
        trained_on=_training(weights),
    )


def _provenance(name: str, url: str, weights: str | None) -> Provenance:
    return Provenance(
        run=TORCHVISION,
        recipe=TORCHVISION,
        recipe_digest=weights or url.rpartition("/")[2],
        method="none",
        backbone=name,
        seed=0,
        steps=0,
        data_fingerprint="ImageNet" if weights is None else weights,
        commit=None,
        versions=own_versions(),
    )


def _training(weights: str | None) -> str:
    if weights == "none":
        return "It was not trained: its weights are random"
    images = "images that are not known" if weights else "ImageNet"
    return f"An unmodified classifier of torchvision, trained on {images}"


def _load_weights(model: nn.Module, name: str, url: str, file: str | None) -> None:
    try:
        if file:
            state = read_state_dict(Path(file))
        elif name in PLAIN:
            state = load_weights(name, None)
        else:
            state = torch.hub.load_state_dict_from_url(url, "cpu", check_hash=True, weights_only=True)
        model.load_state_dict(state)
    except CsgError:
        raise
    except Exception as error:  # torch and its unpickler fail in many ways on a file that is no state dict
        raise InputError(
            f"no weights for {name}: {one_line(error, 160)}",
            f"name a state dict of torchvision's {name} (.pth or .safetensors) with --weights, or use --weights none",
        ) from None


def _photographs(spec: ClassificationInput) -> ParityImages:
    """64 crops, at several scales, of the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    random, batches = np.random.default_rng(0), []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph)
        for _ in range(4):
            crops = []
            for side in random.integers(min(image.size) // 3, min(image.size), 8):
                left, top = random.integers(0, image.width - side), random.integers(0, image.height - side)
                crops.append(prepare(image.crop((left, top, left + side, top + side)), spec))
            batches.append(np.stack(crops))
    return ParityImages(PHOTOGRAPHS, spec, prepared=tuple(batches))
