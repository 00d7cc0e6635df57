"""The folder of an evaluation with few labels: what is asked, in which order, and what was answered.

label-plan.json     the model, the images, and the items to label, in order; written first
candidates.npz      every image or point that could be asked about, with the model's answer: for the estimates alone
labels-NAME.jsonl   the answers of one person (csg_serve/evaluate/labelling/answers.py)

Only the answers before the first open item count: any first part of the order is a sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from csg.records import Record, read_record
from csg_serve.evaluate.records import Count, Index, Source

PLAN = "label-plan.json"
CANDIDATES = "candidates.npz"
PLAN_VERSION: Final = 1


class PlannedImage(Record):
    """An image of the plan."""

    image: Source
    """Its file, from the root."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the file."""


class LabelItem(Record):
    """One question: which class an image, or a point of an image, has."""

    image: Index
    """Index into the plan's images."""
    point: tuple[Index, Index] | None = None
    """Segmenters: x and y of the point, in pixels of the image as it is seen (EXIF orientation applied)."""
    candidate: Index
    """Index of the candidate, in candidates.npz."""
    chance: Annotated[float, Field(gt=0, le=1)]
    """Inclusion probability, given the rest of the order."""
    predicted: Index
    """Index of the class that the model answered. Not to be shown before the answer is given."""


class LabelPlan(Record):
    """label-plan.json: what is asked about which images."""

    version: Literal[1] = PLAN_VERSION
    """Version of the file format."""
    task: Literal["classification", "segmentation"]
    """Whether items are whole images or points."""
    model: str
    """Name of the model."""
    model_version: Count
    """Its version on the server; 0 of a bundle."""
    bundle: Source | None
    """The bundle that answered; None if a server did."""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of what the model is, its card and graph, as in evaluation.json."""
    data: tuple[Source, ...]
    """Sources of the images, as given to --data, from the root."""
    tile: int | None
    """Side of the tiles in pixels, segmenters only; None sent whole images."""
    classes: tuple[str, ...]
    """Names of the classes, in the model's order."""
    seed: Count
    """Seed of the order."""
    images: tuple[PlannedImage, ...]
    """The images that were answered, each content once."""
    duplicates: Count
    """Images that were left out since their content is that of another one."""
    unreadable: Count
    """Images that were left out since they can't be read."""
    items: tuple[LabelItem, ...]
    """What to label, in this order; as many as the budget. A larger budget appends to them."""

    @model_validator(mode="after")
    def _items_of_images(self) -> LabelPlan:
        points = self.task == "segmentation"
        if any(one.image >= len(self.images) or (one.point is not None) != points for one in self.items):
            raise ValueError("each item is of an image, and has a point if the task is segmentation")
        if any(one.predicted >= len(self.classes) for one in self.items):
            raise ValueError("each item has a predicted class")
        return self


def read_plan(folder: Path) -> LabelPlan:
    """Read the plan of a folder.

    Raises:
        InputError: there is none, or it is damaged or of a newer version.
    """
    return read_record(folder / PLAN, LabelPlan, "name the folder that `csg evaluate --budget` wrote")
