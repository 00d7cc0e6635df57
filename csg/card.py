"""The model card: everything that a client needs to use a model correctly, and that a person needs to trust it.

The card is the contract between the stages. `csg export` writes it into the bundle (card.json) and into model.onnx
(metadata); `csg deploy` writes it into the model's Triton configuration (parameter `csg_card`), where clients read it:
they need no file.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from csg.errors import InputError
from csg.provenance import (
    ClassificationEvaluation,
    Engine,
    Format,
    Int8Calibration,
    Parity,
    PretrainedWeights,
    Provenance,
    SegmentationEvaluation,
)
from csg.records import Record, Shape

SCHEMA_VERSION: Literal[2] = 2
"""Version of the card's format; a card with a higher one is refused."""
STRIDE = 8
"""Stride of a segmenter's logits: both sides of its input are multiples of it."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
InputSide = Annotated[int, Field(ge=1, le=8192)]
SegmentationSide = Annotated[int, Field(ge=STRIDE, le=8192, multiple_of=STRIDE)]
RuntimeVersion = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+$")]
Channels = tuple[float, float, float]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Runtime = Literal["onnxruntime", "openvino"]
ComputeType = Literal["fp32", "fp16", "bf16", "int8"]
MAX_CLASS_NAME = 200
"""Maximum length of a class name in characters."""


def class_name(text: str) -> str:
    """Check a class name, and return it in Unicode's composed form (NFC), the same from every operating system.

    Raises:
        ValueError: it is blank, too long, or holds a line break, another control character, or a byte that is not
            UTF-8.

    Example:
        >>> class_name("cafe\\u0301") == "caf\\u00e9"
        True
    """
    name = unicodedata.normalize("NFC", text)
    if not name.strip():
        raise ValueError("a class name is blank")
    if len(name) > MAX_CLASS_NAME:
        raise ValueError(f"a class name has {len(name)} characters, the maximum is {MAX_CLASS_NAME}")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise ValueError("a class name holds a line break, a control character or bytes that are not UTF-8")
    return name


ClassName = Annotated[str, AfterValidator(class_name)]


@dataclass(frozen=True)
class ClassSpec:
    """The classes that a model predicts."""

    names: tuple[str, ...]
    """Class names, in the order of the model's outputs."""
    label_set: str | None = None
    """Segmenters: name of the label set."""
    colours: tuple[Colour, ...] = ()
    """Segmenters: RGB colour of each class."""

    def __len__(self) -> int:
        return len(self.names)


class ClassificationInput(Record):
    """How an image becomes the input of a classifier (`csg.images.prepare`)."""

    fit: Literal["crop"] = "crop"
    """The image is resized and its centre cropped."""
    name: str = "image"
    """Name of the graph's input."""
    dtype: Literal["UINT8"] = "UINT8"
    """Data type of the input, in Triton's terms."""
    layout: Literal["NHWC"] = "NHWC"
    """Order of the input's axes: batch, height, width, RGB."""
    height: InputSide
    """Height of the crop in pixels."""
    width: InputSide
    """Width of the crop in pixels."""
    resize_shorter_side: InputSide
    """Shorter side in pixels after resizing, before the crop."""
    interpolation: Literal["bilinear"] = "bilinear"
    """Interpolation of the resizing, with antialiasing."""
    jpeg_scaling: bool = False
    """JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where that leaves twice the pixels after resizing."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ClassificationInput:
        if max(self.height, self.width) > self.resize_shorter_side:
            raise ValueError("the crop is larger than resize_shorter_side")
        return self


class SegmentationInput(Record):
    """How an image becomes the input of a segmenter (`csg.images.prepare_segmentation`)."""

    fit: Literal["pad"] = "pad"
    """The image is padded at the right and the bottom."""
    name: str = "image"
    """Name of the graph's input."""
    dtype: Literal["UINT8"] = "UINT8"
    """Data type of the input, in Triton's terms."""
    layout: Literal["NHWC"] = "NHWC"
    """Order of the input's axes: batch, height, width, RGB."""
    height: SegmentationSide | None = None
    """Height of the graph's input in pixels; None: any multiple of 8."""
    width: SegmentationSide | None = None
    """Width of the graph's input in pixels; None: any multiple of 8."""
    resize_shorter_side: InputSide | None = None
    """Shorter side in pixels after resizing; None: the image's own size."""
    interpolation: Literal["bilinear"] = "bilinear"
    """Interpolation of the resizing, with antialiasing."""
    jpeg_scaling: bool = False
    """JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where that leaves twice the pixels after resizing."""
    pad_colour: Colour = (124, 116, 104)
    """RGB colour of the padding: ImageNet's mean, which becomes 0 by the normalisation."""

    @model_validator(mode="after")
    def _both_or_none(self) -> SegmentationInput:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        return self


class Normalisation(Record):
    """(x / 255 - mean) / std for each RGB channel."""

    mean: Channels
    """Mean of each channel, in 0..1."""
    std: Channels
    """Standard deviation of each channel, in 0..1."""
    where: Literal["graph"] = "graph"
    """The graph normalises; a client sends the pixels as they are."""


class Output(Record):
    """An output of the graph."""

    name: str
    """Name of the output."""
    dtype: Literal["FP32", "UINT8"] = "FP32"
    """Data type of the output, in Triton's terms."""
    shape: Shape
    """Shape of the output; -1 for the batch, and for sides that are not fixed."""
    meaning: str
    """What the values are."""


class ModelCard(Record):
    """The card of a model."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Version of the card's format."""
    name: Name
    """Name under which the model is deployed."""
    task: Literal["classification", "segmentation"]
    """What the model does."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    """Class names, in the order of the logits."""
    label_set: Name | None = None
    """Segmenters: name of the label set."""
    colours: tuple[Colour, ...] = ()
    """Segmenters: RGB colour of each class."""
    input: Annotated[ClassificationInput | SegmentationInput, Field(discriminator="fit")]
    """The input of the graph, and how an image becomes it."""
    normalisation: Normalisation
    """The normalisation inside the graph."""
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    """The outputs of the graph."""
    precision: Name
    """Name of the precision (`csg_export.precisions`), for people; programs read `runtime` and `compute_type`."""
    precision_note: str
    """What the precision means for this model."""
    runtime: Runtime
    """The library that runs model.onnx."""
    compute_type: ComputeType
    """Number type of most of the model's arithmetic."""
    format: Format = "onnx"
    """An ONNX graph alone, or with an engine of this library."""
    calibration: Int8Calibration | None = None
    """int8: how it was calibrated."""
    engine: Engine | None = None
    """The engine, if the bundle has one."""
    opset: int
    """ONNX opset of the graph."""
    oldest_runtime: RuntimeVersion | None = None
    """The oldest ONNX Runtime that runs the graph; None in cards of an older csg."""
    parity: Parity
    """The comparison with PyTorch."""
    provenance: Provenance
    """Where the weights come from."""
    weights: PretrainedWeights | None = None
    """The pretrained weights that the network started from; None: not known, as in cards of an older csg."""
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...] = ()
    """Scores on images that the model was not trained on."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        segmenter = self.task == "segmentation"
        if segmenter != isinstance(self.input, SegmentationInput) or segmenter != bool(self.label_set):
            raise ValueError(f"input and label set are not those of {self.task}")
        if len(self.colours) != (len(self.classes) if segmenter else 0):
            raise ValueError("a segmenter has one colour for each class, a classifier has none")
        if self.outputs[0].dtype != ("UINT8" if segmenter else "FP32"):
            raise ValueError("the first output of a segmenter is a UINT8 label map, that of a classifier FP32 logits")
        classes = (len(self.classes),)
        if not segmenter and tuple(self.outputs[0].shape[1:]) != classes:
            raise ValueError(f"{classes[0]} classes do not fit a first output of shape {tuple(self.outputs[0].shape)}")
        return self

    @property
    def class_spec(self) -> ClassSpec:
        """The classes that the model predicts."""
        return ClassSpec(self.classes, self.label_set, self.colours)

    def to_json(self, indent: int | None = None) -> str:
        """The card as JSON text."""
        return self.model_dump_json(indent=indent)


def parse_card(text: str | bytes, where: str) -> ModelCard:
    """Parse a model card.

    Args:
        text: the JSON text.
        where: where the text comes from, for the error.

    Raises:
        InputError: the text is not a model card, or one of a newer csg.

    Example:
        >>> parse_card(Path("bundles/digits/card.json").read_bytes(), "card.json").task
        'classification'
    """
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",) and isinstance(first["input"], int) and first["input"] > SCHEMA_VERSION:
            raise InputError(
                f"{where} is of a newer csg: it has schema_version {first['input']}, this csg reads {SCHEMA_VERSION}",
                "update csg",
            ) from None
        field = ".".join(str(part) for part in first["loc"])[:100] or "the text"
        raise InputError(
            f"{where} is not a model card that this csg can read: {field}: {first['msg']}",
            "export the run again with this version",
        ) from None
