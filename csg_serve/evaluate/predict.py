"""`csg predict`: classes, or masks, of images from a served model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from csg.card import ModelCard
from csg.console import log, print_json, show_table
from csg.files import atomic_write
from csg.images import decode
from csg.overlays import overlay, palette_png, png
from csg_serve.client.client import probabilities
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.endpoints import Servers
from csg_serve.evaluate.collect import answers


def predict_command(
    images: list[Path], server: Servers, model: str | None, tile: int | None, out: Path, as_json: bool
) -> None:
    """Class and confidence of each image; from a segmenter its mask and an overlay, written to `out`.

    Raises:
        InputError: an image can't be read.
    """
    served, predictions = asyncio.run(_predict(images, server, model, tile, out))
    if as_json:
        print_json({"model": served.name, "version": served.version, "predictions": predictions})
    elif served.card.task == "classification":
        rows = [(item["image"], item["class"], f"{item['confidence']:.1%}") for item in predictions]
        show_table(f"{served.name} version {served.version}", ("image", "class", "confidence"), rows)
    else:
        rows = [(item["image"], item["mask"], _largest(item["classes"])) for item in predictions]
        show_table(f"{served.name} version {served.version}", ("image", "mask", "classes"), rows)
        log(f"masks and overlays are in {out}/")


async def _predict(
    images: list[Path], server: Servers, model: str | None, tile: int | None, out: Path
) -> tuple[ServedModel, list[dict[str, Any]]]:
    async with open_model(server, model) as served:
        predictions: list[dict[str, Any]] = []
        async with aclosing(answers(served, images, tile)) as found:
            async for place, answer in found:
                if served.card.task == "classification":
                    predictions.append(_class(images[place], answer, served.card))
                else:
                    predictions.append(_mask(images[place], answer, served.card, out))
        return served, predictions


def _class(image: Path, logits: np.ndarray, card: ModelCard) -> dict[str, Any]:
    shares = probabilities(logits)
    return {"image": str(image), "class": card.classes[int(shares.argmax())], "confidence": float(shares.max())}


def _mask(image: Path, label_map: np.ndarray, card: ModelCard, out: Path) -> dict[str, Any]:
    """Writes <image>-mask.png, class indices with the palette, and <image>-overlay.png."""
    mask, laid = (_free(out / f"{image.stem}-{kind}.png") for kind in ("mask", "overlay"))
    atomic_write(mask, palette_png(label_map, card.colours))
    atomic_write(laid, png(overlay(decode(image), label_map, card.colours)))
    shares = np.bincount(label_map.ravel(), minlength=len(card.classes)) / label_map.size
    classes = {name: float(share) for name, share in zip(card.classes, shares, strict=False) if share}
    return {"image": str(image), "mask": str(mask), "overlay": str(laid), "classes": classes}


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3 ... that is not taken."""
    number, free = 2, path
    while free.exists():
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def _largest(classes: dict[str, float]) -> str:
    ranked = sorted(classes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ranked[:3])
