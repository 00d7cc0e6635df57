"""What is exported: a finished run's student, or an unmodified classifier of torchvision as a reference."""

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
from csg.card import (
    ClassificationEvaluation,
    ClassificationInput,
    ClassSpec,
    Normalisation,
    Provenance,
    SegmentationEvaluation,
    SegmentationInput,
)
from csg.errors import InputError, UsageError
from csg.images import prepare
from csg_export.parity_images import Inputs, spread
from csg_train.models.backbones import PLAIN, Normalise, normalisation
from csg_train.models.weights import load_weights
from csg_train.tasks import TASKS, Predict
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student

PARITY_IMAGES, PARITY_SCENES = 512, 64
CALIBRATION_IMAGES, CALIBRATION_SCENES = 256, 64
TORCHVISION = "torchvision"
PHOTOGRAPHS = "crops of scikit-learn's photographs"


@dataclass(frozen=True)
class Source:
    """A network, all that its card says of it, and the images that judge and calibrate its export.

    network: uint8 (B, H, W, 3) to logits. real: what it is compared on. training: what int8's ranges are measured on.
    measure: the evaluation of a network like the student, on the run's real images; None without any.
    """

    stem: str
    name: str
    task: Literal["classification", "segmentation"]
    network: nn.Module
    spec: ClassificationInput | SegmentationInput
    classes: ClassSpec
    normalisation: Normalisation
    provenance: Provenance
    real: Inputs
    training: Inputs
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...] = ()
    measure: Callable[[Predict], ClassificationEvaluation | SegmentationEvaluation] | None = None


def of_run(run: Run, size: tuple[int, int] | None) -> Source:
    """The student of a finished run.

    Args:
        size: a segmenter's fixed height and width; None: any multiples of 8.

    Raises:
        UsageError: `size` for a classifier.
        InputError: the run is not finished or broken.
    """
    student, recipe, class_spec = load_student(run), run.recipe(), run.class_spec()
    task, scenes = TASKS[recipe.task], recipe.task == "seg"
    spec = _sized(recipe.data.image_input(), size)
    training = task.read_synthetic(recipe)
    real = task.read_real(recipe, class_spec, recipe.data.real, True) if recipe.data.real else None
    judged = real or training  # a run without real images is compared on its training images
    mean, std = normalisation(recipe.model.backbone)
    measured = run.result().get("real")
    kind = SegmentationEvaluation if scenes else ClassificationEvaluation

    def measure(predict: Predict) -> ClassificationEvaluation | SegmentationEvaluation:
        return task.measure(predict, class_spec, real, recipe, torch.device("cpu")).evaluation

    return Source(
        stem=run.path.resolve().name,
        name=f"{recipe.name}-{recipe.method}",
        task="segmentation" if scenes else "classification",
        network=student,
        spec=spec,
        classes=class_spec,
        normalisation=Normalisation(mean=mean, std=std),
        provenance=_provenance(run),
        real=Inputs(judged.name, spec, spread(judged.paths, PARITY_SCENES if scenes else PARITY_IMAGES)),
        training=Inputs(
            training.name, spec, spread(training.paths, CALIBRATION_SCENES if scenes else CALIBRATION_IMAGES)
        ),
        evaluations=(kind.model_validate(measured),) if measured else (),
        measure=measure if measured else None,
    )


def _sized(
    spec: ClassificationInput | SegmentationInput, size: tuple[int, int] | None
) -> ClassificationInput | SegmentationInput:
    if size is None:
        return spec
    if isinstance(spec, ClassificationInput):
        raise UsageError("--size is for segmenters", "leave it out")
    return SegmentationInput(**spec.model_dump() | {"height": size[0], "width": size[1]})


def _provenance(run: Run) -> Provenance:
    recipe, record = run.recipe(), run.environment()
    return Provenance(
        run=run.path.resolve().name,
        recipe=recipe.name,
        recipe_digest=record["recipe_digest"],
        method=recipe.method,
        backbone=recipe.model.backbone,
        seed=recipe.seed,
        steps=run.result()["steps"],
        data_fingerprint=record["data_fingerprint"],
        commit=record["commit"],
        versions={"csg": record["csg"], "python": record["python"], **record["packages"]},
    )


class _Reference(nn.Module):
    """A torchvision classifier that takes pixels, uint8 (B, H, W, 3), and normalises them itself."""

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.normalise, self.model = Normalise(mean, std), model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalise(images))
        return logits


def of_torchvision(name: str, weights: str | None) -> Source:
    """An ImageNet classifier of torchvision's, compared and calibrated on crops of two photographs.

    Args:
        weights: a file, or "none" for random ones; torchvision's best by default.

    Raises:
        UsageError: torchvision has no such classifier.
        InputError: the weights can't be had, or are another model's.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UsageError(f"torchvision has no classifier {name!r}", "see torchvision.models.list_models()")
    row = PLAIN[name].weights if name in PLAIN else torchvision.models.get_model_weights(name).DEFAULT
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    if weights != "none":
        model.load_state_dict(_weights(name, row.url, weights))
    expects = row.transforms()
    side = expects.crop_size[0]
    spec = ClassificationInput(height=side, width=side, resize_shorter_side=max(side, expects.resize_size[0]))
    mean, std = tuple(expects.mean), tuple(expects.std)
    crops = _photographs(spec)
    return Source(
        stem=f"{TORCHVISION}-{name}",
        name=name,
        task="classification",
        network=_Reference(model, mean, std).eval(),
        spec=spec,
        classes=ClassSpec(tuple(row.meta["categories"])),
        normalisation=Normalisation(mean=mean, std=std),
        provenance=Provenance(
            run=TORCHVISION,
            recipe=TORCHVISION,
            recipe_digest=weights or row.url.rpartition("/")[2],
            method="none",
            backbone=name,
            seed=0,
            steps=0,
            data_fingerprint="ImageNet" if weights is None else weights,
            commit=None,
            versions={"csg": csg.__version__, **{one: metadata.version(one) for one in ("torch", TORCHVISION)}},
        ),
        real=crops,
        training=crops,
    )


def _weights(name: str, url: str, file: str | None) -> dict[str, Tensor]:
    if name in PLAIN:
        return load_weights(name, Path(file) if file else None)
    try:
        if file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        else:
            state = torch.hub.load_state_dict_from_url(url, "cpu", check_hash=True, weights_only=True)
        return dict(state)
    except (urllib.error.URLError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"no weights for {name}: {reason}", "give them with --weights FILE, or --weights none"
        ) from None


def _photographs(spec: ClassificationInput) -> Inputs:
    """64 crops of the two photographs that come with scikit-learn, at several scales."""
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
    return Inputs(PHOTOGRAPHS, spec, ready=tuple(batches))
