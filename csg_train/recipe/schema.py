"""The recipe: every setting of a run, typed, checked before training starts, and saved with the run."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from csg.card import Name
from csg.records import Record
from csg_train.methods import METHODS, load_method
from csg_train.methods.spec import method_settings
from csg_train.models.names import check_backbone
from csg_train.recipe.augment_settings import ClassificationAugment, SegmentationAugment
from csg_train.recipe.data_settings import ClassificationData, SegmentationData
from csg_train.recipe.model_settings import ClassificationModel, SegmentationModel
from csg_train.recipe.optim_settings import Optim
from csg_train.recipe.setting_types import Steps
from csg_train.recipe.speed_settings import Speed

VERSION: Literal[2] = 2
"""Version of the recipe format; a recipe with a higher one is refused, one with a lower one is upgraded
(`csg_train.recipe.upgrade`)."""


def _list_methods(schema: dict[str, Any]) -> None:
    schema["enum"] = list(METHODS)


class Recipe(Record):
    """A run of either task: `ClassificationRecipe` or `SegmentationRecipe`.

    Example:
        >>> from csg_train.recipe import load_recipe
        >>> load_recipe("digits", {"method": "l2", "optim.epochs": 1}).methods["l2"]["weight"]
        0.1
    """

    version: Literal[2] = VERSION
    """Version of the format."""
    name: Name
    """Name of the recipe; run folders are named after it."""
    task: Literal["cls", "seg"]
    """Classification or segmentation."""
    data: ClassificationData | SegmentationData
    """The images."""
    augment: ClassificationAugment | SegmentationAugment
    """Augmentation of the training images."""
    model: ClassificationModel | SegmentationModel
    """The network."""
    optim: Optim = Optim()
    """The optimizer and its schedule."""
    speed: Speed = Speed()
    """Speed and memory of the training."""
    method: Annotated[str, Field(json_schema_extra=_list_methods)] = "csg"
    """Name of the method to train with."""
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of methods by name; those of the chosen method are completed with its defaults."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic of the training; auto: bf16 if the device has instructions for it, otherwise fp16 on a GPU
    and fp32 on a CPU."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all random numbers."""
    evaluate_every: Steps = 0
    """Measure the student every N steps, and at the end; 0: at the end only. Of all measurements on the real images the
    best is kept too, as an oracle."""
    checkpoint: Literal["last", "synthetic"] = "last"
    """Which weights become the student: the last ones, or those of the measurement that is best on held-out synthetic
    images (needs `data.holdout` and `evaluate_every`)."""

    @model_validator(mode="after")
    def _student_can_be_chosen(self) -> Recipe:
        optim, measured = self.optim, bool(self.data.holdout and self.evaluate_every)
        rules = {
            "checkpoint: synthetic": self.checkpoint == "synthetic",
            "optim.average": bool(optim.average),
            "optim.swad": optim.swad is not None,
            "optim.wise": optim.wise is not None,
        }
        chosen = [name for name, wanted in rules.items() if wanted]
        for name in ("checkpoint: synthetic", "optim.swad"):
            if rules[name] and not measured:
                raise ValueError(f"{name} needs data.holdout and evaluate_every above 0")
        if optim.wise == "auto" and not self.data.holdout:
            raise ValueError("optim.wise=auto needs data.holdout above 0: alpha is chosen on held-out images")
        if optim.wise is not None and self.model.weights == "none":
            raise ValueError("optim.wise starts from pretrained weights, and model.weights=none makes them random")
        if optim.wise is not None and self.model.training == "frozen":
            raise ValueError("optim.wise moves between two encoders, and model.training=frozen has one")
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} each choose the student; set one of them")
        return self

    @model_validator(mode="after")
    def _complete_methods(self) -> Recipe:
        methods = {
            name: method_settings(name, self.task, self.methods.get(name, {})).model_dump(mode="json")
            for name in sorted({self.method, *self.methods})
        }
        object.__setattr__(self, "methods", methods)
        method, training = load_method(self.method), self.model.training
        if training not in method.trainings:
            allowed = " or ".join(method.trainings)
            raise ValueError(
                f"method {self.method} does nothing sensible with model.training={training}: use {allowed}"
            )
        suffix, backbone = method.backbone_variant, self.model.backbone
        if not backbone.endswith(suffix):
            model = self.model.model_copy(update={"backbone": check_backbone(backbone + suffix)})
            object.__setattr__(self, "model", model)
        return self

    def schedule(self, images: int) -> int:
        """The number of steps of a training with `images` images."""
        optim = self.optim
        steps = optim.steps or optim.epochs * (images // min(optim.batch, images))
        return min(steps, optim.max_steps or steps)

    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of all images that the network sees; None where they may differ."""
        return None

    def to_yaml(self) -> str:
        """The resolved recipe as YAML text."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def digest(self) -> str:
        """SHA-256 of all settings, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ClassificationRecipe(Recipe):
    """A classifier's run."""

    task: Literal["cls"]
    """cls: classification."""
    data: ClassificationData
    augment: ClassificationAugment = ClassificationAugment()
    model: ClassificationModel = ClassificationModel()

    def fixed_size(self) -> tuple[int, int]:
        return self.data.size, self.data.size


class SegmentationRecipe(Recipe):
    """A segmenter's run."""

    task: Literal["seg"]
    """seg: segmentation."""
    data: SegmentationData
    augment: SegmentationAugment = SegmentationAugment()
    model: SegmentationModel = SegmentationModel()
