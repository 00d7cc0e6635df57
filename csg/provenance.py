"""The parts of a model card that say how the model was made and how it was checked."""

from __future__ import annotations

from typing import Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from csg.records import Record, Shape

Format = Literal["onnx", "tensorrt", "tensorrt-rtx"]
CalibrationMethod = Literal["minmax", "minmax90", "entropy", "percentile", "mse"]


class ParityStage(Record):
    """A stage of the export compared with the trained network in PyTorch, on the same images."""

    stage: str
    """Name of the stage."""
    source: str
    """The images: the real dataset's name, or the kind of hard inputs."""
    images: int
    """Number of images."""
    agreement: float
    """Share of images with the same top-1 class; segmenters: share of pixels with the same class."""
    max_abs_diff: float
    """Largest absolute difference of a logit."""
    mean_abs_diff: float
    """Mean absolute difference of the logits."""
    kl: float
    """Mean KL divergence of the class probabilities from PyTorch's, in nats."""


class Parity(Record):
    """The exported graph compared with the trained network in PyTorch."""

    images: int
    """Number of images."""
    source: str
    """Name of the images' dataset, real ones if there were any; or "hard inputs"."""
    agreement: float
    """Share of images, or pixels, with the same class."""
    max_abs_diff: float
    """Largest absolute difference of a logit."""
    tolerance: float | None
    """Largest accepted absolute difference of a logit; None: any finite one."""
    stages: tuple[ParityStage, ...] = ()
    """Every stage of the export, on `source` and on hard inputs; the last one on `source` is the graph itself."""


class Float32Layer(Record):
    """A layer of an int8 model that computes in float32, with what follows it until the next layer."""

    name: str
    """Name of its node in the graph."""
    error: float
    """What 8 bits of this layer alone cost: mean squared difference of an image's logits, as a share of their variance,
    without the quarter of the images with the largest."""


class Int8Calibration(Record):
    """How the ranges of an int8 model were measured, and what was done to keep its accuracy."""

    source: str
    """Name of the images' dataset: training images, never those of the evaluations."""
    images: int
    """Number of images."""
    method: CalibrationMethod
    """How the ranges are derived from the values."""
    fp32_first_last: bool
    """Whether the first and the last layer compute in float32."""
    remedies: tuple[str, ...] = ()
    """What else was done to the graph, for one whose plain int8 graph was refused."""
    float32_layers: tuple[Float32Layer, ...] = ()
    """The further layers that compute in float32, the one with the largest error first."""

    @model_serializer(mode="wrap")
    def _without_empty_lists(self, serialise: SerializerFunctionWrapHandler) -> object:
        """A graph that needed no repair has the card, and so the bytes, of a csg that knew of none."""
        written: object = serialise(self)
        if not isinstance(written, dict):  # a value that is refused when it is read
            return written
        return {name: value for name, value in written.items() if value not in ((), [])}


class Engine(Record):
    """What model.plan was built by, and for which GPUs."""

    library: Format
    """The library that built it."""
    version: str
    """Version of the library."""
    target: tuple[str, ...]
    """Compute capabilities of the GPUs, or the name of the GPU it was built on."""
    profile: tuple[Shape, Shape, Shape]
    """Minimum, best and maximum shape of the input."""
    portable: bool = False
    """Whether newer versions of the library and other GPUs load it."""


class PretrainedWeights(Record):
    """What is known of the pretrained weights that a network started from, and of their licence."""

    name: str
    """Name of the weights, or of a file of the user's; "none" for random weights."""
    source: str | None = None
    """Address of the weights, or of who publishes them."""
    licence: str | None = None
    """The licence that their publisher names; None: none is known."""
    note: str
    """Who states what, and where, in one sentence."""

    @property
    def headline(self) -> str:
        """All of it as text, without the address."""
        return self.note if self.name == "none" else f"{self.name}: licence {self.licence or 'not stated'}; {self.note}"


class Provenance(Record):
    """Where the weights come from."""

    run: str
    """Name of the run folder."""
    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """SHA-256 of all settings of the recipe."""
    method: str
    """Name of the method."""
    backbone: str
    """Name of the backbone."""
    seed: int
    """Seed of the run."""
    steps: int
    """Training steps until the weights were taken."""
    data_fingerprint: str
    """Fingerprint of the training images."""
    commit: str | None
    """Commit of csg, if it ran from a checkout."""
    versions: dict[str, str]
    """Versions of the packages by name."""


class ClassificationEvaluation(Record):
    """Scores of a classifier on images that it was not trained on."""

    of: Literal["student", "graph"] = "student"
    """What was evaluated: the trained network in PyTorch, or the exported graph."""
    dataset: str
    """Name of the dataset."""
    images: int
    """Number of images."""
    skipped: int = 0
    """Images that could not be read."""
    accuracy: float
    """Share of images whose class is predicted correctly."""
    mean_class_accuracy: float
    """Mean of the accuracies within each class."""

    @property
    def score(self) -> float:
        """The main score, in 0..1."""
        return self.accuracy

    @property
    def headline(self) -> str:
        """The main scores as text."""
        return f"accuracy {self.accuracy:.2%}, mean class accuracy {self.mean_class_accuracy:.2%}"


class SegmentationEvaluation(Record):
    """Scores of a segmenter on images that it was not trained on."""

    of: Literal["student", "graph"] = "student"
    """What was evaluated: the trained network in PyTorch, or the exported graph."""
    dataset: str
    """Name of the dataset."""
    images: int
    """Number of images."""
    skipped: int = 0
    """Images that could not be read."""
    miou: float
    """Mean IoU over the classes that occur in predictions or labels."""
    pixel_accuracy: float
    """Share of pixels whose class is predicted correctly."""
    frequency_weighted_iou: float
    """Mean IoU, weighted by the pixels of each true class."""
    per_class: dict[str, float | None]
    """IoU by class name; None for a class that occurs in neither predictions nor labels."""

    @property
    def score(self) -> float:
        """The main score, in 0..1."""
        return self.miou

    @property
    def headline(self) -> str:
        """The main scores as text."""
        return f"mIoU {self.miou:.2%}, pixel accuracy {self.pixel_accuracy:.2%}"
