"""Networks to export: a finished run's student, or an unmodified classifier of torchvision as a reference."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import csg
from csg.card import ClassificationInput, ClassSpec, Normalisation, SegmentationInput
from csg.errors import InputError, UsageError, one_line
from csg.images import prepare
from csg.provenance import ClassificationEvaluation, Provenance, SegmentationEvaluation
from csg_export.parity_images import ParityImages, evenly_spaced
from csg_train.models.backbones import PLAIN, Normalise, normalisation
from csg_train.models.weights import load_weights
from csg_train.tasks import TASKS, Predict
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student

PARITY_IMAGES = {"cls": 512, "seg": 64}
"""Number of real images that an export is compared on."""
CALIBRATION_IMAGES = {"cls": 256, "seg": 64}
"""Number of training images that int8's ranges are measured on."""
TORCHVISION = "torchvision"
PHOTOGRAPHS = "crops of scikit-learn's photographs"


@dataclass(frozen=True)
class Source:
    """A network to export, with what its model card says about it and the images to check the export on."""

    stem: str
    """Start of the bundle's folder name."""
    name: str
    """Name of the model."""
    task: Literal["classification", "segmentation"]
    """What it does."""
    network: nn.Module
    """Takes uint8 (B, H, W, 3) and returns logits (B, K) or (B, K, H, W)."""
    spec: ClassificationInput | SegmentationInput
    """How an image becomes its input."""
    classes: ClassSpec
    """What it tells apart."""
    normalisation: Normalisation
    """How it normalises pixels."""
    provenance: Provenance
    """Where its weights come from."""
    real: ParityImages
    """Images that the export is compared on."""
    training: ParityImages
    """Images that int8's ranges are measured on."""
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...] = ()
    """The student's scores on the run's real images, if it has any."""
    measure: Callable[[Predict], ClassificationEvaluation | SegmentationEvaluation] | None = None
    """Measures another network on the run's real images; None without any."""


def from_run(run: Run, size: tuple[int, int] | None = None) -> Source:
    """The student of a finished run.

    Args:
        size: fixed height and width for a segmenter; None: any multiples of 8.

    Raises:
        UsageError: `size` is given for a classifier.
        InputError: the run is not finished, or a file of it is broken.
    """
    student, recipe, class_spec = load_student(run), run.recipe(), run.class_spec()
    task, segmentation = TASKS[recipe.task], recipe.task == "seg"
    spec = _with_size(recipe.data.image_input(), size)
    training = task.read_synthetic(recipe)
    real = task.read_real(recipe, class_spec, recipe.data.real) if recipe.data.real else None
    compared = real or training
    mean, std = normalisation(recipe.model.backbone)
    measured = run.result().real

    def measure(predict: Predict) -> ClassificationEvaluation | SegmentationEvaluation:
        return task.measure(predict, class_spec, real, recipe, device=torch.device("cpu")).evaluation

    return Source(
        stem=run.path.resolve().name,
        name=f"{recipe.name}-{recipe.method}",
        task="segmentation" if segmentation else "classification",
        network=student,
        spec=spec,
        classes=class_spec,
        normalisation=Normalisation(mean=mean, std=std),
        provenance=_provenance(run),
        real=ParityImages(compared.name, spec, evenly_spaced(compared.paths, PARITY_IMAGES[recipe.task])),
        training=ParityImages(training.name, spec, evenly_spaced(training.paths, CALIBRATION_IMAGES[recipe.task])),
        evaluations=(measured,) if measured else (),
        measure=measure if measured else None,
    )


def _with_size(
    spec: ClassificationInput | SegmentationInput, size: tuple[int, int] | None
) -> ClassificationInput | SegmentationInput:
    if size is None:
        return spec
    if isinstance(spec, ClassificationInput):
        raise UsageError("--size is for segmenters only", "leave it out")
    return SegmentationInput(**spec.model_dump() | {"height": size[0], "width": size[1]})


def _provenance(run: Run) -> Provenance:
    recipe, record = run.recipe(), run.environment()
    return Provenance(
        run=run.path.resolve().name,
        recipe=recipe.name,
        recipe_digest=record.recipe_digest,
        method=recipe.method,
        backbone=recipe.model.backbone,
        seed=recipe.seed,
        steps=run.result().steps,
        data_fingerprint=record.data_fingerprint,
        commit=record.commit,
        versions={"csg": record.csg, "python": record.python, **record.packages},
    )


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
        weights: a file, or "none" for random weights; None: torchvision's best.

    Raises:
        UsageError: torchvision has no such classifier.
        InputError: the weights can't be downloaded or read, or belong to another model.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UsageError(f"torchvision has no classifier {name!r}", "see torchvision.models.list_models()")
    row = PLAIN[name].weights if name in PLAIN else torchvision.models.get_model_weights(name).DEFAULT
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    if weights != "none":
        model.load_state_dict(_load_weights(name, row.url, weights))
    preset = row.transforms()
    side, mean, std = preset.crop_size[0], tuple(preset.mean), tuple(preset.std)
    spec = ClassificationInput(height=side, width=side, resize_shorter_side=max(side, preset.resize_size[0]))
    crops = _photographs(spec)
    return Source(
        stem=f"{TORCHVISION}-{name}",
        name=name,
        task="classification",
        network=_WithNormalisation(model, mean, std).eval(),
        spec=spec,
        classes=ClassSpec(tuple(row.meta["categories"])),
        normalisation=Normalisation(mean=mean, std=std),
        provenance=_torchvision_provenance(name, row.url, weights),
        real=crops,
        training=crops,
    )


def _torchvision_provenance(name: str, url: str, weights: str | None) -> Provenance:
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
        versions={"csg": csg.__version__, **{package: metadata.version(package) for package in ("torch", TORCHVISION)}},
    )


def _load_weights(name: str, url: str, file: str | None) -> dict[str, Tensor]:
    if name in PLAIN:
        return load_weights(name, Path(file) if file else None)
    try:
        if file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        else:
            state = torch.hub.load_state_dict_from_url(url, "cpu", check_hash=True, weights_only=True)
        return dict(state)
    except (urllib.error.URLError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no weights for {name}: {one_line(error, 160)}", "name a file with --weights, or use --weights none"
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
