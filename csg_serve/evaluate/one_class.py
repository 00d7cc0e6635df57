"""A model that answers all of many images with one class: what to check, in one line."""

from __future__ import annotations

from collections.abc import Collection

from csg.card import ModelCard

MANY = {"classification": 20, "segmentation": 5}
"""Images from which on one class for all of them is worth a line."""


def one_class_hint(card: ModelCard, predicted: Collection[str], images: int) -> str | None:
    """What to check if a model gave all of many images one class; None if it did not.

    Args:
        card: card of the model.
        predicted: names of the classes that were predicted, of a segmenter for any pixel.
        images: number of images.
    """
    if len(predicted) != 1 or images < MANY[card.task]:
        return None
    what = f"every pixel of all {images:,} images" if card.task == "segmentation" else f"every one of {images:,} images"
    known = ""
    if card.evaluations:
        known = f", whose score on {card.evaluations[0].dataset} was {card.evaluations[0].score:.1%}"
    return (
        f"{what} was predicted as {next(iter(predicted))}: if they show other classes too, check the training{known} "
        "(too few steps, or too little of the other classes: csg data check), and whether these images are of the kind "
        "that the model was made for"
    )
