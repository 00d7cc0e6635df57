"""The golden images as requests, and what is wrong with an answer.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg.card import ModelCard
from csg.golden import GoldenAnswer, GoldenAnswers, golden_pixels
from csg.images import PaddedImage
from csg_serve.client.transport import Inference
from csg_serve.triton.config import ENCODED, card_of, golden_of


@dataclass(frozen=True)
class GoldenModel:
    """A ready model, and what it should answer."""

    name: str
    """Name of the model."""
    version: int
    """Its version."""
    card: ModelCard
    """The card of the tensor model."""
    golden: GoldenAnswers | None
    """The golden answers of the tensor model; None if it was deployed from a bundle without."""
    encoded: bool
    """Whether it is a `<name>_encoded`, which takes image files."""
    max_batch: int
    """Images that a request may have."""
    cached: bool
    """Whether it answers equal requests from a cache."""


def golden_model(name: str, version: int, config: ModelConfig, of: ModelConfig | None, *, where: str) -> GoldenModel:
    """What a model should answer.

    Args:
        name: name of the model.
        version: its version.
        config: its configuration.
        of: for a `<name>_encoded`, the configuration of its tensor model.
        where: where they come from, for the error message.

    Raises:
        InputError: a configuration holds no card, or no golden answers of such a model.
    """
    card = card_of(of or config, where)
    return GoldenModel(
        name,
        version,
        card,
        golden_of(of or config, card, where),
        encoded=of is not None,
        max_batch=max(1, config.max_batch_size),
        cached=config.response_cache.enable,
    )


@dataclass(frozen=True)
class Question:
    """A golden image as a model takes it."""

    golden: GoldenAnswer
    """The image, and PyTorch's answer."""
    content: NDArray[np.uint8] | bytes
    """Pixels, uint8 (H, W, 3), or the image file."""
    padded: PaddedImage | None
    """How a label map is brought to the image's own size, if the model does that."""

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of the answer."""
        expected = self.golden.expected
        return (expected if self.padded is None else self.padded.restore(expected)).shape


def questions(model: GoldenModel) -> list[Question]:
    """The golden images as a model takes them; empty if it has no golden answers."""
    found = []
    for golden in model.golden.answers if model.golden else ():
        pixels, padded = golden_pixels(golden, model.card)
        if model.encoded:
            found.append(Question(golden, golden.image, padded))
        else:
            found.append(Question(golden, pixels, None))
    return found


def batches(model: GoldenModel, asked: list[Question]) -> Iterator[list[Question]]:
    """Batches that show a model that is right for some sizes or places only.

    Each image alone, all images together, and for a classifier that takes tensors the largest batch.
    """
    by_shape: dict[tuple[int, ...], list[Question]] = defaultdict(list)
    for question in asked:
        yield [question]
        by_shape[question.row].append(question)
    for alike in by_shape.values():
        together = alike[: model.max_batch]
        if len(together) > 1:
            yield together
        if model.card.task == "classification" and not model.encoded and model.max_batch > len(together):
            yield list(islice(cycle(reversed(alike)), model.max_batch))


def inference(model: GoldenModel, batch: list[Question], deadline_s: float) -> Inference:
    """The request for a batch. If the model has a response cache, noise is added, so that the answer is computed."""
    output, spec = model.card.outputs[0], model.card.input
    tensor: NDArray[Any]
    if model.encoded:
        tensor = np.array([[question.content] for question in batch], np.object_)
    else:
        tensor = np.stack([np.asarray(question.content) for question in batch])
        if model.cached and len(batch) < model.max_batch:
            noise = np.random.default_rng().integers(0, 256, (1, *tensor.shape[1:]), np.uint8)
            tensor = np.concatenate([tensor, noise])
    return Inference(
        model=model.name,
        input=ENCODED if model.encoded else spec.name,
        tensor=tensor,
        output=output.name,
        dtype=output.dtype,
        row=batch[0].row,
        classes=len(model.card.classes),
        deadline_s=deadline_s,
    )


def mistake(batch: list[Question], answer: NDArray[Any]) -> str | None:
    """What is wrong with the answer to a batch; None if it is right."""
    for question, row in zip(batch, answer, strict=False):  # noise at the end is not compared
        difference = question.golden.difference(row, question.padded)
        if difference:
            return difference + (f", in a batch of {len(batch)}" if len(batch) > 1 else "")
    return None
