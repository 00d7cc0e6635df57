"""Golden answers: a few images, and what PyTorch answered for them when the bundle was exported.

Whoever runs the model can compare its answers with them: the script of the Python backend when it loads the graph,
`csg deploy`, `csg serve` and the watchdog through the server, and any client at a distance. A server can be ready,
fast and wrong, for example if its libraries do not fit each other.

Shape letters: K classes; H W height and width of the model's input.
"""

from __future__ import annotations

import io
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field, ValidationError, model_validator

from csg.card import ModelCard, SegmentationInput
from csg.difference import difference
from csg.errors import InputError, one_line
from csg.images import MAX_PIXELS, PaddedImage, decode, load, load_segmentation
from csg.npz import npz_bytes
from csg.records import Record

GOLDEN_VERSION: Literal[1] = 1
"""Version of the format of golden answers."""
BASE64 = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class GoldenAnswer(Record):
    """One image, and PyTorch's answer."""

    model_config = BASE64

    name: str
    """What the image shows, for messages."""
    image: Annotated[bytes, Field(min_length=1)]
    """The image as a PNG file, small and without loss."""
    logits: tuple[float, ...] = ()
    """Classifiers: PyTorch's logits, one for each class."""
    label_map: bytes | None = None
    """Segmenters: PyTorch's label map for the prepared image, padding included, as a PNG file."""
    tolerance: Annotated[float, Field(ge=0)]
    """Classifiers: maximum absolute difference of a logit. Segmenters: maximum share of pixels of another class."""

    @model_validator(mode="after")
    def _one_answer(self) -> GoldenAnswer:
        if bool(self.logits) == (self.label_map is not None):
            raise ValueError("give either logits or a label map")
        return self

    @cached_property
    def expected(self) -> np.ndarray:
        """PyTorch's answer: logits float32 (K,), or label map uint8 (H, W)."""
        if self.label_map is None:
            return np.array(self.logits, np.float32)
        with Image.open(io.BytesIO(self.label_map), formats=["PNG"]) as label_map:
            if label_map.width * label_map.height > MAX_PIXELS:
                raise ValueError(f"the label map of {self.name} is too large")
            return np.asarray(label_map, np.uint8)

    def difference(self, answer: np.ndarray, padded: PaddedImage | None = None) -> str | None:
        """How an answer differs from PyTorch's by more than the tolerance, in words; None if it does not.

        Args:
            answer: logits (K,), or label map (H, W).
            padded: of a segmenter, if `answer` is in the image's own size: its prepared image.
        """
        expected = self.expected if padded is None else padded.restore(self.expected)
        return difference(self.name, answer, expected, self.tolerance)


class GoldenAnswers(Record):
    """The golden answers of a bundle: the content of golden.json."""

    model_config = BASE64

    version: Literal[1] = GOLDEN_VERSION
    """Version of this format."""
    answers: Annotated[tuple[GoldenAnswer, ...], Field(min_length=1, max_length=32)]
    """The images and answers."""

    def to_json(self) -> str:
        """The answers as JSON text."""
        return self.model_dump_json()


def parse_golden(text: str | bytes, card: ModelCard, where: str) -> GoldenAnswers:
    """Parse golden answers.

    Args:
        text: the JSON text.
        card: the card of the same bundle.
        where: where the text comes from, for the error.

    Raises:
        InputError: the text holds no golden answers, or not those of such a model.
    """
    hint = "export the run again with this version"
    try:
        golden = GoldenAnswers.model_validate_json(text)
        for answer in golden.answers:
            _check_fits(answer, card)
    except (ValueError, InputError, OSError, SyntaxError) as error:  # ValidationError is a ValueError, Pillow's are all
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else one_line(error)
        raise InputError(f"{where} holds no golden answers of this model: {first}", hint) from None
    return golden


def _check_fits(answer: GoldenAnswer, card: ModelCard) -> None:
    classes = len(card.classes)
    if card.task == "classification":
        if len(answer.logits) != classes:
            raise ValueError(f"{answer.name} has {len(answer.logits)} logits, the card has {classes} classes")
    elif answer.label_map is None or answer.expected.ndim != 2 or int(answer.expected.max(initial=0)) >= classes:
        raise ValueError(f"{answer.name} has no label map of {classes} classes")
    decode(answer.image, answer.name)


def golden_pixels(answer: GoldenAnswer, card: ModelCard) -> tuple[np.ndarray, PaddedImage | None]:
    """Prepare a golden image as any other image.

    Returns:
        The model's input, uint8 (H, W, 3), and for a segmenter how its answer is brought to the image's own size.
    """
    if isinstance(card.input, SegmentationInput):
        padded = load_segmentation(answer.image, card.input, answer.name)
        return padded.pixels, padded
    return load(answer.image, card.input, answer.name), None


def golden_arrays(golden: GoldenAnswers, card: ModelCard) -> bytes:
    """The golden answers as a .npz file for scripts without csg.

    For the answer of index i it holds `name_i`, `tolerance_i`, `pixels_i`, uint8 (1, H, W, 3), and `expected_i`: logits
    float32 (1, K) or label map uint8 (1, H, W).
    """
    arrays: dict[str, np.ndarray] = {}
    for index, answer in enumerate(golden.answers):
        arrays[f"name_{index}"] = np.array(answer.name)
        arrays[f"tolerance_{index}"] = np.array(answer.tolerance)
        arrays[f"pixels_{index}"] = golden_pixels(answer, card)[0][None]
        arrays[f"expected_{index}"] = answer.expected[None]
    return npz_bytes(arrays)
