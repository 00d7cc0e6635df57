"""The settings of `data`: the images of a run, and their size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from csg.card import STRIDE, ClassificationInput, SegmentationInput
from csg.records import Record
from csg_train.recipe.setting_types import ImageCount, Share

TrainingSide = Annotated[int, Field(ge=8, le=2048, json_schema_extra={"unit": "pixels"})]
CropSide = Annotated[int, Field(ge=STRIDE, le=4096, multiple_of=STRIDE, json_schema_extra={"unit": "pixels"})]


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
