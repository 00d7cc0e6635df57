"""The model card: everything a client needs to use a model correctly, and a person needs to trust it.

It is the contract between the stages: written by export into the bundle (`card.json`), carried inside
`model.onnx` (metadata) and inside the Triton model's configuration (parameter `csg_card`), so that a client
needs no file at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from csg.errors import InputError

SCHEMA_VERSION: Literal[2] = 2
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Side = Annotated[int, Field(ge=1, le=8192)]
Shape = Annotated[tuple[Annotated[int, Field(ge=-1, le=2**31 - 1)], ...], Field(min_length=1)]
Channels = tuple[float, float, float]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Runtime = Literal["onnxruntime", "openvino"]
ComputeType = Literal["fp32", "fp16", "bf16", "int8"]
Format = Literal["onnx", "tensorrt", "tensorrt-rtx"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
STRIDE = 8  # of a segmenter's logits: both sides of its images are multiples of it


@dataclass(frozen=True)
class ClassSpec:
    """What a model tells apart: class names in the order of its outputs; of a segmenter also its label set's name and
    the colours.
    """

    names: tuple[str, ...]
    label_set: str | None = None
    colours: tuple[Colour, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassificationInput(_Part):
    """How an image becomes a classifier's input: see `csg.images.prepare`, which follows it to the letter."""

    fit: Literal["crop"] = "crop"
    name: str = "image"
    dtype: Literal["UINT8"] = "UINT8"
    layout: Literal["NHWC"] = "NHWC"
    height: Side
    width: Side
    resize_shorter_side: Side
    interpolation: Literal["bilinear"] = "bilinear"

    @model_validator(mode="after")
    def _crop_fits(self) -> ClassificationInput:
        if max(self.height, self.width) > self.resize_shorter_side:
            raise ValueError("the crop is larger than resize_shorter_side")
        return self


class SegmentationInput(_Part):
    """How an image becomes a segmenter's input: see `csg.images.prepare_segmentation`, which follows it to the letter.

    height, width: of the graph's input, multiples of 8; None: any multiple of 8. resize_shorter_side: None leaves the
    image in its own size. pad_colour: ImageNet's mean, which is 0 once normalised.
    """

    fit: Literal["pad"] = "pad"
    name: str = "image"
    dtype: Literal["UINT8"] = "UINT8"
    layout: Literal["NHWC"] = "NHWC"
    height: Annotated[int, Field(ge=STRIDE, le=8192, multiple_of=STRIDE)] | None = None
    width: Annotated[int, Field(ge=STRIDE, le=8192, multiple_of=STRIDE)] | None = None
    resize_shorter_side: Side | None = None
    interpolation: Literal["bilinear"] = "bilinear"
    pad_colour: Colour = (124, 116, 104)

    @model_validator(mode="after")
    def _both_or_none(self) -> SegmentationInput:
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width are both given, or neither")
        return self


class Normalisation(_Part):
    """(x / 255 - mean) / std for each RGB channel; done inside the graph."""

    mean: Channels
    std: Channels
    where: Literal["graph"] = "graph"


class Output(_Part):
    """One output of the graph; -1 in `shape` is the batch, or a side that is free."""

    name: str
    dtype: Literal["FP32", "UINT8"] = "FP32"
    shape: Shape
    meaning: str


class ParityStage(_Part):
    """One stage of the export against the trained network in PyTorch, on the same images.

    `agreement` is the share of images with the same top-1 class, of a segmenter the share of pixels with the same
    class; `max_abs_diff` and `mean_abs_diff` are over all logits; `kl` is the mean divergence of the stage's class
    probabilities from PyTorch's, in nats.
    """

    stage: str
    source: str
    images: int
    agreement: float
    max_abs_diff: float
    mean_abs_diff: float
    kl: float


class Parity(_Part):
    """The exported graph against the trained network in PyTorch, on real images; fields as those of a stage.

    stages: every stage on the way, on the real images and on hard inputs; the last one on real images is the graph's.
    """

    images: int
    source: str
    agreement: float
    max_abs_diff: float
    tolerance: float
    stages: tuple[ParityStage, ...] = ()


class Calibration(_Part):
    """What int8's ranges were measured on: training images, never those that the model is judged on."""

    source: str
    images: int
    method: CalibrationMethod
    fp32_first_last: bool


class Engine(_Part):
    """What `model.plan` was built by and for.

    target: compute capabilities, or the GPU it was built on. profile: (least, best, largest) shape of the input.
    """

    library: Format
    version: str
    target: tuple[str, ...]
    profile: tuple[Shape, Shape, Shape]
    portable: bool = False


class Provenance(_Part):
    """Where the weights came from."""

    run: str
    recipe: str
    recipe_digest: str
    method: str
    backbone: str
    seed: int
    steps: int
    data_fingerprint: str
    commit: str | None
    versions: dict[str, str]


class ClassificationEvaluation(_Part):
    """A measurement of a classifier on a set that training never saw; `of`: the PyTorch student, or the graph."""

    of: Literal["student", "graph"] = "student"
    dataset: str
    images: int
    skipped: int = 0
    accuracy: float
    mean_class_accuracy: float

    @property
    def score(self) -> float:
        """The figure that decides, in 0..1."""
        return self.accuracy

    @property
    def headline(self) -> str:
        """The main figures in words."""
        return f"accuracy {self.accuracy:.2%}, mean class accuracy {self.mean_class_accuracy:.2%}"


class SegmentationEvaluation(_Part):
    """A measurement of a segmenter on a set that training never saw; `of`: the PyTorch student, or the graph.

    per_class: IoU by class name, None for a class that is in neither predictions nor labels.
    """

    of: Literal["student", "graph"] = "student"
    dataset: str
    images: int
    skipped: int = 0
    miou: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    per_class: dict[str, float | None]

    @property
    def score(self) -> float:
        """The figure that decides, in 0..1."""
        return self.miou

    @property
    def headline(self) -> str:
        """The main figures in words."""
        return f"mIoU {self.miou:.2%}, pixel accuracy {self.pixel_accuracy:.2%}"


class ModelCard(_Part):
    """The card as a whole. label_set and colours belong to segmenters.

    precision: the name of a row in `csg_export.precisions`, for people. runtime, compute_type: what a server goes by:
    the library that computes model.onnx, and the number type of most of its arithmetic.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    name: Name
    task: Literal["classification", "segmentation"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    label_set: Name | None = None
    colours: tuple[Colour, ...] = ()
    input: Annotated[ClassificationInput | SegmentationInput, Field(discriminator="fit")]
    normalisation: Normalisation
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    precision: Name
    precision_note: str
    runtime: Runtime
    compute_type: ComputeType
    format: Format = "onnx"
    calibration: Calibration | None = None
    engine: Engine | None = None
    opset: int
    parity: Parity
    provenance: Provenance
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...] = ()

    @model_validator(mode="after")
    def _task_is_whole(self) -> ModelCard:
        scenes = self.task == "segmentation"
        if scenes != isinstance(self.input, SegmentationInput) or scenes != bool(self.label_set):
            raise ValueError(f"input and label set are not those of {self.task}")
        if len(self.colours) != (len(self.classes) if scenes else 0):
            raise ValueError("a segmenter's classes have a colour each")
        return self

    @property
    def class_spec(self) -> ClassSpec:
        """What the model tells apart."""
        return ClassSpec(self.classes, self.label_set, self.colours)

    def to_json(self, indent: int | None = None) -> str:
        """The card as JSON text."""
        return self.model_dump_json(indent=indent)


def parse_card(text: str | bytes, where: str) -> ModelCard:
    """Read a card.

    Raises:
        InputError: the text is no card that this version of csg understands; `where` names its origin.
    """
    try:
        card = ModelCard.model_validate_json(text)
        return ModelCard.model_validate_json(card.to_json())  # JSON has neither NaN nor infinity: they would be lost
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",) and isinstance(first["input"], int) and first["input"] > SCHEMA_VERSION:
            raise InputError(
                f"{where} is of a newer csg: schema_version {first['input']}, and this one reads {SCHEMA_VERSION}",
                "bring csg up to date",
            ) from None
        place = ".".join(str(part) for part in first["loc"]) or "the whole text"
        raise InputError(
            f"{where} holds no model card that this version of csg understands: {place}: {first['msg']}",
            "export the run again with this version",
        ) from None
