"""The recipe: every setting of a run, typed, checked before training starts, and saved with the run."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from csg.card import STRIDE, ClassificationInput, Name, SegmentationInput
from csg.records import Record
from csg_train.methods import METHODS, load_method
from csg_train.methods.spec import method_settings
from csg_train.models.names import PLAIN_NAMES, TIMM, VARIANTS, check_backbone

VERSION: Literal[2] = 2
"""Version of the recipe format; a recipe with a higher one is refused, one with a lower one is upgraded
(`csg_train.recipe.upgrade`)."""

MAGNITUDES = 30
"""The largest magnitude of RandAugment (docs/method.md section 6)."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
ImageCount = Annotated[int, Field(ge=1, json_schema_extra={"unit": "images"})]
SomeSteps = Annotated[int, Field(ge=1, json_schema_extra={"unit": "steps"})]
Steps = Annotated[int, Field(ge=0, json_schema_extra={"unit": "steps"})]
TrainingSide = Annotated[int, Field(ge=8, le=2048, json_schema_extra={"unit": "pixels"})]
CropSide = Annotated[int, Field(ge=STRIDE, le=4096, multiple_of=STRIDE, json_schema_extra={"unit": "pixels"})]
BACKBONE_PATTERN = f"^({'|'.join(PLAIN_NAMES)})(_({'|'.join(VARIANTS)}))?$|^{TIMM}."
"""The names of backbones, for editors that check a recipe by its JSON schema."""


def _list_methods(schema: dict[str, Any]) -> None:
    schema["enum"] = list(METHODS)


class _Data(Record):
    """The images of a run."""

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """Sources of the synthetic training images: folders or list files (`csg.datasets`), or an embedded set's name."""
    real: tuple[str, ...] = ()
    """Sources of the real images to measure on; they are never trained on. Empty: none."""
    count: ImageCount = 8000
    """Number of images to draw, if the training images are an embedded set."""
    holdout: Share = 0.0
    """Share of the synthetic images that is kept from training; the run is measured on them too."""
    jpeg_scaling: bool = True
    """Decode JPEG files that are much larger than needed at 1/2, 1/4 or 1/8 of their size (`csg.images`); a run of a
    csg that could not do so stays without it."""
    workers: Annotated[int, Field(ge=0, json_schema_extra={"unit": "processes"})] | None = None
    """Loader processes; null: by the number of cores."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """What to do with an image that can't be read: stop the run, or let the next image take its place, and count it."""


class ClassificationData(_Data):
    """The images of a classifier's run, and their size."""

    resize: TrainingSide = 224
    """Shorter side after resizing, in pixels (docs/method.md section 6)."""
    size: TrainingSide = 224
    """Side of the square crop, in pixels (docs/method.md section 6)."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ClassificationData:
        if self.size > self.resize:
            raise ValueError(f"size {self.size} is larger than resize {self.resize}")
        return self

    def image_input(self) -> ClassificationInput:
        """The preprocessing for evaluation, as the model card states it."""
        return ClassificationInput(
            height=self.size, width=self.size, resize_shorter_side=self.resize, jpeg_scaling=self.jpeg_scaling
        )


class SegmentationData(_Data):
    """The images and masks of a segmenter's run, and their size."""

    labels: str | None = None
    """Label set of sources that contain no labels.yaml: a name or a YAML file."""
    real_labels: str | None = None
    """Label set of the real sources; null: the same as `labels`."""
    resize: TrainingSide | None = None
    """Shorter side in pixels to which images are resized first; null: their own size."""
    crop: tuple[CropSide, CropSide] = (512, 512)
    """Height and width of the training crop in pixels, multiples of 8 (docs/method.md section 7)."""

    def image_input(self) -> SegmentationInput:
        """The preprocessing for evaluation (the whole image), as the model card states it."""
        return SegmentationInput(resize_shorter_side=self.resize, jpeg_scaling=self.jpeg_scaling)


class ClassificationAugment(Record):
    """RandAugment (docs/method.md section 6: n = 1, m = 6 of 30)."""

    operations: Annotated[int, Field(ge=0)] = 1
    """Operations drawn for each view; 0 switches RandAugment off."""
    magnitude: Annotated[int, Field(ge=0, le=MAGNITUDES)] = 6
    """Magnitude of an operation, of 30: 6 is a fifth of each range."""


class SegmentationAugment(Record):
    """Random scale, flip and colour jitter (docs/method.md section 7)."""

    scale: tuple[Positive, Positive] = (0.75, 1.25)
    """The scale of a crop is drawn uniformly between these."""
    flip: bool = True
    """Flip half of the crops horizontally."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.4
    """Largest change of brightness, contrast, saturation and hue in every view after the first."""


class ClassificationModel(Record):
    """The network of a classifier: a backbone and a linear head."""

    backbone: Annotated[str, Field(json_schema_extra={"pattern": BACKBONE_PATTERN})] = "resnet101"
    """mobilenet_v2, resnet18, resnet34, resnet50 or resnet101, each also with _ibn_a or _ibn_b appended; or timm:NAME,
    one of timm's models."""
    weights: str | None = None
    """File with the backbone's pretrained weights (docs/how-to/weights.md); `none`: random weights; null: ImageNet's,
    from torch's cache or a download."""
    freeze_batch_norm: bool = True
    """Keep the backbone's batch norm on its ImageNet statistics (docs/method.md section 2)."""
    freeze_affine: bool = False
    """Keep the scale and shift of the backbone's batch norm too."""

    @model_validator(mode="after")
    def _backbone_exists(self) -> ClassificationModel:
        check_backbone(self.backbone)
        return self


class SegmentationModel(ClassificationModel):
    """The network of a segmenter: a dilated backbone and a head for every pixel."""

    freeze_affine: bool = True
    """Keep the scale and shift of the backbone's batch norm too."""
    head: Literal["aspp", "deeplabv2"] = "aspp"
    """aspp: DeepLabv3's, as in the published code; deeplabv2: the head of the paper (docs/method.md section 7)."""
    align_corners: bool = True
    """Let the corner pixels of the logits and of the image coincide when the logits are brought to the image's size, as
    published (docs/method.md section 7)."""

    @model_validator(mode="after")
    def _dilatable(self) -> SegmentationModel:
        if self.backbone.startswith(TIMM):
            raise ValueError("timm backbones can't be dilated; use one of torchvision's for segmentation")
        return self


class Optim(Record):
    """SGD with two learning rates and polynomial decay in every step (docs/method.md section 6)."""

    lr_backbone: Positive = 1e-5
    """Initial learning rate of the backbone."""
    lr_heads: Positive = 1e-4
    """Initial learning rate of the head, and of the method's own layers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of SGD."""
    power: Positive = 0.9
    """Exponent of the decay: a rate is multiplied by (1 - step / steps) ** power."""
    warm_up: Steps = 100
    """Steps of warm-up: in step i, counted from 0, rates are also multiplied by min(0.01 + 0.99 (i / warm_up)^2, 1)
    (docs/method.md section 6)."""
    average: Share = 0.0
    """Share of the training, at its end, over whose steps the student's weights are averaged; 0: no averaging."""
    batch: ImageCount = 32
    """Images in a step, over all processes."""
    epochs: Annotated[int, Field(ge=1, json_schema_extra={"unit": "passes"})] = 30
    """Passes over the synthetic images, unless `steps` is set."""
    steps: SomeSteps | None = None
    """Length of the schedule in steps, whatever the number of images; null: `epochs` decides."""
    max_steps: SomeSteps | None = None
    """Maximum length of the schedule in steps; null: no maximum."""
    accumulate: Count = 1
    """Number of equal parts in which a batch is processed, to save memory."""
    clip: Positive | None = None
    """Maximum norm of the gradient; null: no clipping."""


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
    model: ClassificationModel
    """The network."""
    optim: Optim = Optim()
    """The optimizer and its schedule."""
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
        if self.checkpoint == "synthetic":
            if not (self.data.holdout and self.evaluate_every):
                raise ValueError("checkpoint: synthetic needs data.holdout and evaluate_every above 0")
            if self.optim.average:
                raise ValueError("checkpoint: synthetic and optim.average both choose the student; set one of them")
        return self

    @model_validator(mode="after")
    def _complete_methods(self) -> Recipe:
        methods = {
            name: method_settings(name, self.task, self.methods.get(name, {})).model_dump(mode="json")
            for name in sorted({self.method, *self.methods})
        }
        object.__setattr__(self, "methods", methods)
        suffix, backbone = load_method(self.method).backbone_variant, self.model.backbone
        if not backbone.endswith(suffix):
            model = self.model.model_copy(update={"backbone": check_backbone(backbone + suffix)})
            object.__setattr__(self, "model", model)
        return self

    def schedule(self, images: int) -> int:
        """The number of steps of a training with `images` images."""
        optim = self.optim
        steps = optim.steps or optim.epochs * (images // min(optim.batch, images))
        return min(steps, optim.max_steps or steps)

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


class SegmentationRecipe(Recipe):
    """A segmenter's run."""

    task: Literal["seg"]
    """seg: segmentation."""
    data: SegmentationData
    augment: SegmentationAugment = SegmentationAugment()
    model: SegmentationModel = SegmentationModel()
