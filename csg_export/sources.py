"""Networks to export: a finished run's student, or an unmodified classifier of torchvision as a reference.

A published checkpoint is in csg_export/checkpoint_source.py.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
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
from csg.console import log
from csg.errors import CsgError, InputError, UsageError, one_line
from csg.images import prepare
from csg.provenance import ClassificationEvaluation, Provenance, SegmentationEvaluation
from csg_export.parity_images import ParityImages, evenly_spaced
from csg_train.models.backbones import PLAIN, Normalise, normalisation
from csg_train.models.state_dicts import read_state_dict
from csg_train.models.weights import load_weights
from csg_train.tasks import TASKS, Images, Predict
from csg_train.training.run_data import real_images, training_images
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
    real: ParityImages | None
    """Real images that the export is compared on; None: hard inputs alone."""
    training: Callable[[], ParityImages]
    """Reads the images that int8's ranges are measured on."""
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...] = ()
    """The student's scores on the run's real images, if it has any."""
    measure: Callable[[Predict], ClassificationEvaluation | SegmentationEvaluation] | None = None
    """Measures another network on the run's real images; None without any."""


def from_run(
    run: Run, size: tuple[int, int] | None = None, data: Sequence[str] = (), real_data: Sequence[str] = ()
) -> Source:
    """The student of a finished run.

    Args:
        run: the run.
        size: fixed height and width for a segmenter; None: any multiples of 8.
        data: where the training images are now, for int8; none: where they were.
        real_data: where the real images are now; none: where they were. If they are not there, a line says so, and the
            export is compared on hard inputs alone.

    Raises:
        UsageError: `size` is given for a classifier.
        InputError: the run is not finished, a file of it is broken, or the images named are not those of the run.
    """
    student, recipe, class_spec = load_student(run), run.recipe(), run.class_spec()
    task, spec = TASKS[recipe.task], with_size(recipe.data.image_input(), size)
    real = _real_images(run, real_data)
    mean, std = normalisation(recipe.model.backbone)
    measured = run.result().real

    def training() -> ParityImages:
        return parity_sample(training_images(run, data), spec, CALIBRATION_IMAGES[recipe.task])

    def measure(predict: Predict) -> ClassificationEvaluation | SegmentationEvaluation:
        return task.measure(predict, class_spec, real, recipe, device=torch.device("cpu")).evaluation

    return Source(
        stem=run.path.resolve().name,
        name=f"{recipe.name}-{recipe.method}",
        task="segmentation" if recipe.task == "seg" else "classification",
        network=student,
        spec=spec,
        classes=class_spec,
        normalisation=Normalisation(mean=mean, std=std),
        provenance=_provenance(run),
        real=parity_sample(real, spec, PARITY_IMAGES[recipe.task]) if real else None,
        training=training,
        evaluations=(measured,) if measured else (),
        measure=measure if measured and real else None,
    )


def _real_images(run: Run, sources: Sequence[str]) -> Images | None:
    """The real images of a run; None with a line in the log if there are none to compare on."""
    try:
        images = real_images(run, sources)
    except InputError as error:
        if sources:
            raise
        log(f"{error.message}: compared on hard inputs only, unless --real-data names their place")
        return None
    if images is None:
        log(f"run {run.path} has no real images: compared on hard inputs only, unless --real-data names some")
    return images


def parity_sample(images: Images, spec: ClassificationInput | SegmentationInput, count: int) -> ParityImages:
    """At most `count` images of a dataset, evenly spaced, to compare or calibrate on."""
    return ParityImages(images.name, spec, evenly_spaced(images.paths, count))


def with_size(
    spec: ClassificationInput | SegmentationInput, size: tuple[int, int] | None
) -> ClassificationInput | SegmentationInput:
    """The input of a network with a fixed height and width, if `size` is given.

    Raises:
        UsageError: the network is a classifier.
    """
    if size is None:
        return spec
    if isinstance(spec, ClassificationInput):
        raise UsageError("--size is for segmenters only", "leave it out")
    return SegmentationInput(**spec.model_dump() | {"height": size[0], "width": size[1]})


def _provenance(run: Run) -> Provenance:
    recipe, record, result = run.recipe(), run.environment(), run.result()
    return Provenance(
        run=run.path.resolve().name,
        recipe=recipe.name,
        recipe_digest=record.recipe_digest,
        method=recipe.method,
        backbone=recipe.model.backbone,
        seed=recipe.seed,
        steps=result.student.step if result.student else result.steps,
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
        provenance=_torchvision_provenance(name, row.url, weights),
        real=crops,
        training=lambda: crops,
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
        versions=own_versions(),
    )


def own_versions() -> dict[str, str]:
    """The versions of csg, torch and torchvision here, for weights that no run of csg has recorded any of."""
    return {"csg": csg.__version__, **{package: metadata.version(package) for package in ("torch", TORCHVISION)}}


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
