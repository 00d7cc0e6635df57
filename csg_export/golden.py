"""Golden answers of an export: what PyTorch answers for a few images, and how far the graph may differ."""

from __future__ import annotations

import numpy as np
from PIL import Image

from csg.card import ClassificationInput, SegmentationInput
from csg.errors import VerificationError
from csg.golden import GoldenAnswer, GoldenAnswers
from csg.images import decode, load, load_segmentation
from csg.overlays import png_bytes
from csg_export.parity import Tolerance
from csg_export.parity_images import ParityImages, evenly_spaced
from csg_export.runners import Predictions, Runner

ImageSpec = ClassificationInput | SegmentationInput
REAL_IMAGES = 2
"""Number of real images, if any may be passed on."""
REAL_SIDE = 128
"""Longer side of such an image in pixels, at most: every client can read them."""
LOOSE = 0.5
"""A tolerance of at least this share of the largest logit tells nothing about one image."""
LOOSE_DIFFERENCE = 0.1
"""Used instead of it."""
MEASURED_FACTOR = 2.0
"""An answer may always differ by this multiple of what the graph differs by here."""


def golden_answers(
    reference: Runner,
    run: Runner,
    tolerances: tuple[Tolerance, Tolerance],
    real: ParityImages | None,
    *,
    spec: ImageSpec,
) -> GoldenAnswers:
    """Ask the trained network about a few images.

    Args:
        reference: the trained network in PyTorch.
        run: the exported graph, which must be within the tolerance here.
        tolerances: the precision's tolerance on real images and on hard inputs.
        real: the export's real images, if a few of them may be passed on with the bundle.
        spec: how an image becomes the input.

    Raises:
        VerificationError: the graph differs from PyTorch by more than the tolerance.
    """
    images = [(name, image, tolerances[1]) for name, image in made_images().items()]
    if real:
        images += [(f"real image {index}", image, tolerances[0]) for index, image in enumerate(_real(real), 1)]
    answers = []
    for name, image, tolerance in images:
        pixels = _prepared(image, spec)
        expected, got = reference(pixels), run(pixels)
        answers.append(_answer(name, image, tolerance, expected, got=got, spec=spec))
    return GoldenAnswers(answers=tuple(answers))


def made_images() -> dict[str, Image.Image]:
    """Noise, smooth colours and a checkerboard, by name."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (48, 48, 3), np.uint8)
    colours = random.integers(0, 256, (5, 5, 3), np.uint8)
    board = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8)
    painted = np.array([(230, 60, 20), (20, 90, 210)], np.uint8)[board]
    return {
        "noise": Image.fromarray(noise),
        "smooth colours": Image.fromarray(colours).resize((64, 64), Image.Resampling.BICUBIC),
        "a checkerboard": Image.fromarray(painted),
    }


def _real(images: ParityImages) -> list[Image.Image]:
    found = [decode(path) for path in evenly_spaced(images.paths, REAL_IMAGES)]
    for image in found:
        image.thumbnail((REAL_SIDE, REAL_SIDE))
    return found


def _prepared(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    pixels = load(image, spec) if isinstance(spec, ClassificationInput) else load_segmentation(image, spec).pixels
    return np.stack([pixels])


def _answer(
    name: str, image: Image.Image, tolerance: Tolerance, expected: Predictions, *, got: Predictions, spec: ImageSpec
) -> GoldenAnswer:
    if isinstance(spec, SegmentationInput):
        classes = expected.logits.argmax(1).astype(np.uint8)[0]
        measured = float((got.classes_N != classes.ravel()).mean())
        share = 1 - tolerance.agreement if tolerance.agreement else LOOSE_DIFFERENCE
        allowed = max(share, MEASURED_FACTOR * measured)
        label_map = png_bytes(Image.fromarray(classes))
        return GoldenAnswer(name=name, image=png_bytes(image), label_map=label_map, tolerance=min(allowed, 1.0))
    logits = expected.logits[0].astype(np.float32)
    largest, measured = float(np.abs(logits).max()), float(np.abs(logits - got.logits[0]).max())
    limit = tolerance.difference * max(1.0, largest)
    if not measured <= limit:
        raise VerificationError(
            f"the graph differs from PyTorch on {name} by {measured:.4g} (at most {limit:.4g} allowed)",
            "nothing was written; --tolerance sets the limit",
        )
    share = tolerance.difference if tolerance.difference < LOOSE else LOOSE_DIFFERENCE
    allowed = max(share * largest, MEASURED_FACTOR * measured)
    shortened = tuple(float(f"{value:.9g}") for value in logits)
    return GoldenAnswer(name=name, image=png_bytes(image), logits=shortened, tolerance=float(f"{allowed:.6g}"))
