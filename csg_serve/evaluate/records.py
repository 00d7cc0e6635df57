"""Records that an evaluation writes: the specification, the lines of the journal, and the result."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, AwareDatetime, Field, PlainSerializer, TypeAdapter, model_validator

from csg.errors import printable
from csg.images import MAX_PIXELS
from csg.paired_tests import PairedResult, Verdict
from csg.records import Record

SCHEMA_VERSION: Final = 1

Count = Annotated[int, Field(ge=0, le=2**53)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Time = Annotated[float, Field(ge=0, le=1e10)]
Source = Annotated[str, AfterValidator(printable)]
"""A path or a name; bytes that are not UTF-8, which JSON does not have, are written as printable text."""
WrittenPath = Annotated[Path, PlainSerializer(lambda path: printable(str(path)), when_used="json")]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]


class EvaluationSpec(Record):
    """evaluation.json: which model is measured on which images."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of the file format."""
    model: str
    """Name of the model."""
    version: Count
    """Version of the model that the server had ready; 0 of a bundle."""
    bundle: Source | None = None
    """The bundle that answered in this process; None if a server did."""
    card: str
    """SHA-256 of the model card; of a bundle also of the files of its graph."""
    data: tuple[Source, ...]
    """Sources of the images, as given to --data."""
    labels: Source | None
    """Label set of the masks, segmentation only; None for the model's own."""
    tile: Annotated[int, Field(ge=64, lt=2**31)] | None
    """Side of the tiles in pixels, segmentation only; None sends whole images."""
    mirrored: bool = False
    """Whether mirror images are sent too."""
    dataset: Source
    """Name of the data set."""
    images: Annotated[int, Field(ge=1, lt=2**31)]
    """Number of images."""
    fingerprint: str
    """Fingerprint of the images and their labels, wherever they are."""

    @property
    def title(self) -> str:
        """The model's name for a heading, as `csg_serve.client.model.title`."""
        return self.model if self.bundle else f"{self.model} version {self.version}"


class Session(Record):
    """A journal line: the evaluation started, or was resumed."""

    kind: Literal["session"] = "session"
    """Tells the kinds of lines apart."""
    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of the file format."""
    started: AwareDatetime
    """Time of the start."""
    server: str
    """Address of the server, or of several; or the folder of the bundle."""


class ImageRecord(Record):
    """What the journal keeps of every image."""

    index: Index
    """Index of the image in the data set."""
    elapsed_s: Time
    """Seconds since the session started."""


class ClassificationAnswer(ImageRecord):
    """A journal line: the answer for one image of a classifier."""

    kind: Literal["classification"] = "classification"
    """Tells the kinds of lines apart."""
    latency_ms: Time
    """Milliseconds from sending the request to its answer."""
    true: Index
    """Index of the true class, in the model's order."""
    predicted: Index
    """Index of the class with the highest probability."""
    confidence: Share
    """Probability of the predicted class, rounded to six digits."""
    mirrored: Index | None = None
    """Index of the class of image and mirror image together, if mirror images are sent."""


class PixelCells(Record):
    """The non-zero cells of an image's confusion matrix."""

    cells: tuple[Index, ...]
    """Flat indices into the confusion matrix, rows true, columns predicted; the last column is "no class"."""
    pixels: tuple[Index, ...]
    """Number of pixels in each of these cells."""

    @model_validator(mode="after")
    def _one_image(self) -> PixelCells:
        if len(self.cells) != len(self.pixels) or any(a >= b for a, b in pairwise(self.cells)):
            raise ValueError("cells ascend, and each has its pixels")
        if sum(self.pixels) > MAX_PIXELS:
            raise ValueError("an image has fewer pixels")
        return self


class SegmentationAnswer(PixelCells, ImageRecord):
    """A journal line: the answer for one image of a segmenter."""

    kind: Literal["segmentation"] = "segmentation"
    """Tells the kinds of lines apart."""
    latency_ms: Time
    """Milliseconds from sending the request to its answer."""
    mirrored: PixelCells | None = None
    """The cells of image and mirror image together, if mirror images are sent."""


class Skipped(ImageRecord):
    """A journal line: an image that could not be read."""

    kind: Literal["skipped"] = "skipped"
    """Tells the kinds of lines apart."""
    reason: str
    """Why it could not be read."""


AnswerRecord: TypeAlias = ClassificationAnswer | SegmentationAnswer
"""The record of an image that was answered."""
JournalRecord: TypeAlias = Session | AnswerRecord | Skipped
"""A line of the journal."""
JOURNAL_RECORD: TypeAdapter[JournalRecord] = TypeAdapter(Annotated[JournalRecord, Field(discriminator="kind")])
"""Parses a line of the journal."""


class MirroredAccuracy(Record):
    """Accuracy from the mean of the class probabilities of image and mirror image."""

    accuracy: float
    """As `ClassificationResult.accuracy`."""
    accuracy_interval: Interval
    """As `ClassificationResult.accuracy_interval`."""
    mean_class_accuracy: float
    """As `ClassificationResult.mean_class_accuracy`."""
    mean_class_accuracy_interval: Interval
    """As `ClassificationResult.mean_class_accuracy_interval`."""


class MirroredIou(Record):
    """IoU from the mean of the class probabilities of image and mirror image."""

    miou: float
    """As `SegmentationResult.miou`."""
    miou_interval: Interval | None
    """As `SegmentationResult.miou_interval`."""
    pixel_accuracy: float
    """As `SegmentationResult.pixel_accuracy`."""
    frequency_weighted_iou: float
    """As `SegmentationResult.frequency_weighted_iou`."""


class DifferingImage(Record):
    """An image on which two classifiers differ and one is right."""

    index: Index
    """Index of the image in the data set."""
    image: Source
    """Its file."""
    true: str
    """Its class."""
    a: str
    """What model A answered."""
    b: str
    """What model B answered."""
    confidence_a: Share
    """Probability that A gave its answer."""
    confidence_b: Share
    """Probability that B gave its answer."""


class DifferingScene(Record):
    """An image whose mIoU two segmenters differ on."""

    index: Index
    """Index of the image in the data set."""
    image: Source
    """Its file."""
    a: Share
    """mIoU of the image, of model A."""
    b: Share
    """The same of model B."""
    classes: dict[str, tuple[Share, Share]]
    """IoU of A and of B, of the classes of the image on which they differ most."""


class Requirement(Record):
    """What a script requires of the model, and whether it is met."""

    require: Literal["not-worse", "better"]
    """What was required of the main score."""
    margin: Share
    """Loss of the main score that does not count as worse, for "not-worse"."""
    met: bool
    """Whether it is shown."""


class AgainstResult(Record):
    """An evaluation (B) against an earlier one of the same images (A)."""

    folder: WrittenPath
    """Folder of evaluation A."""
    model: str
    """Model A."""
    version: Count
    """Its version; 0 of a bundle."""
    bundle: Source | None = None
    """Its bundle, if that answered in a process."""
    left_out: Count
    """Images that one of the two could not read: they count in no figure of the comparison."""
    paired: PairedResult
    """The differences of the scores, with intervals and p."""
    verdicts: dict[str, Verdict]
    """Whether B is better, by name of the score."""
    only_a: tuple[DifferingImage | DifferingScene, ...]
    """Images that only A gets right; of segmenters those on which B loses most. At most twelve (docs/evaluation.md)."""
    only_b: tuple[DifferingImage | DifferingScene, ...]
    """Images that only B gets right; of segmenters those on which B gains most."""
    requirement: Requirement | None = None
    """What was required."""

    @property
    def title(self) -> str:
        """Model A's name for a heading, with its version or the name of its bundle's folder."""
        return f"{self.model} ({Path(self.bundle).name})" if self.bundle else f"{self.model} version {self.version}"


class EvaluationResult(Record):
    """result.json and `csg evaluate --json`: what both tasks share."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of the file format."""
    model: str
    """Name of the model."""
    version: Count
    """Version of the model; 0 of a bundle."""
    bundle: WrittenPath | None = None
    """The bundle that answered in this process; None if a server did."""
    images: Count
    """Images that were answered."""
    skipped: Count
    """Images that could not be read."""
    per_class: dict[str, float | None]
    """Accuracy or IoU of each class; None for a class without images or pixels."""
    images_per_s: float
    """Images answered per second, over all sessions."""
    latency_ms: dict[str, float]
    """Percentiles of the request latency in milliseconds: p50, p90, p99."""
    folder: WrittenPath
    """Folder of the evaluation."""
    report: WrittenPath | None
    """The HTML page, if one was written."""
    against: AgainstResult | None = None
    """The comparison with another evaluation, if one was asked for."""


class ClassificationResult(EvaluationResult):
    """Result of a classifier."""

    task: Literal["classification"] = "classification"
    """The model's task."""
    accuracy: float
    """Correct answers over all answers."""
    accuracy_interval: Interval
    """95 % confidence interval of the accuracy: Wilson's score interval."""
    mean_class_accuracy: float
    """Mean of the accuracies of the classes that have images."""
    mean_class_accuracy_interval: Interval
    """95 % confidence interval of the mean class accuracy: bootstrap within the classes."""
    ece: float
    """Expected calibration error."""
    mirrored: MirroredAccuracy | None = None
    """With mirror images, if they were sent."""


class SegmentationResult(EvaluationResult):
    """Result of a segmenter."""

    task: Literal["segmentation"] = "segmentation"
    """The model's task."""
    miou: float
    """Mean IoU of the classes that occur in labels or predictions."""
    miou_interval: Interval | None
    """95 % confidence interval of the mIoU: bootstrap over images; None unless two images have counted pixels."""
    pixel_accuracy: float
    """Correct pixels over all pixels."""
    frequency_weighted_iou: float
    """IoU of the classes, weighted by their pixels."""
    label_map: dict[str, str]
    """The model's classes by their names in the label set of the images, if that is another set."""
    pictures: tuple[WrittenPath, ...]
    """Image, prediction and labels of the best, the median and the worst image."""
    mirrored: MirroredIou | None = None
    """With mirror images, if they were sent."""
