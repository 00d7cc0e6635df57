"""Measures a served model on labelled real images, and predicts single ones, through the server."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csg.console import print_json, progress, results, say, show_table
from csg.errors import InputError
from csg.metrics import ClassScores, class_scores
from csg.realset import DIGITS_REAL, read_labelled
from csg_serve.client import ServedModel, open_model, stream

SKIPPED = -1


@dataclass(frozen=True)
class Report:
    """What a served model reaches on a set of real images."""

    model: str
    version: int
    dataset: str
    classes: tuple[str, ...]
    scores: ClassScores
    skipped: int
    images_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg evaluate --json`; a class without images has None."""
        per_class = (None if np.isnan(share) else float(share) for share in self.scores.per_class)
        return {
            "model": self.model,
            "version": self.version,
            "images": self.scores.images,
            "skipped": self.skipped,
            "accuracy": self.scores.accuracy,
            "mean_class_accuracy": self.scores.mean_class_accuracy,
            "per_class": dict(zip(self.classes, per_class, strict=True)),
            "images_per_s": self.images_per_s,
        }


def evaluate(server: str, model: str | None, data: list[str], unreadable: str) -> Report:
    """Send labelled images through a server and score its answers.

    Args:
        server: gRPC HOST:PORT.
        model: its name; the only csg model there by default.
        data: sources as `csg.realset.read_labelled` takes them.
        unreadable: "fail" at an image that can't be read, or "skip" and count it.

    Raises:
        UsageError, ServerError: as `csg_serve.client.open_model` and `stream`.
        InputError: the data can't be used, holds classes that the model has not, or an image can't be read.
    """
    return asyncio.run(_evaluate(server, model, data, unreadable))


async def _evaluate(server: str, model: str | None, data: list[str], unreadable: str) -> Report:
    async with open_model(server, model) as served:
        images = read_labelled(data).in_order_of(served.card.classes, partly=True)
        began = time.perf_counter()
        predicted = np.array(await _classes(served, images.paths, skip=unreadable == "skip"))
        seconds = time.perf_counter() - began
    read = predicted != SKIPPED
    if not read.any():
        raise InputError(f"none of the {len(images)} images of {images.name} can be read", "repair them")
    scores = class_scores(images.labels[read], predicted[read], len(images.classes))
    skipped = int((~read).sum())
    return Report(served.name, served.version, images.name, images.classes, scores, skipped, scores.images / seconds)


async def _classes(served: ServedModel, paths: tuple[Path, ...], skip: bool) -> list[int]:
    """The predicted class of each image, SKIPPED for one that can't be read."""
    predicted: list[int] = []
    with progress() as bar:
        task = bar.add_task(f"{served.name} version {served.version}", total=len(paths), note="")
        async with aclosing(stream(served, paths)) as answers:
            async for answer in answers:
                if not isinstance(answer, InputError):
                    predicted.append(int(answer.argmax()))
                elif skip:
                    say(f"skipped: {answer.what}")
                    predicted.append(SKIPPED)
                else:
                    raise InputError(answer.what, f"{answer.todo}, or leave such images out with --unreadable skip")
                bar.advance(task)
    return predicted


def evaluate_command(server: str, model: str | None, data: list[str] | None, unreadable: str, as_json: bool) -> None:
    """`csg evaluate`: measure and show."""
    sources = data or [DIGITS_REAL]
    say(f"evaluating on {', '.join(sources)}{'' if data else ' (default)'} through {server}")
    report = evaluate(server, model, sources, unreadable)
    if as_json:
        print_json(report.to_dict())
        return
    scores = report.scores
    counts = scores.confusion.sum(1)
    rows = [
        (name, str(count), f"{share:.1%}" if count else "-")
        for name, count, share in zip(report.classes, counts, scores.per_class, strict=True)
    ]
    show_table(f"{report.model} version {report.version} on {report.dataset}", ("class", "images", "accuracy"), rows)
    results.print(f"accuracy             {scores.accuracy:.2%}")
    results.print(f"mean class accuracy  {scores.mean_class_accuracy:.2%}")
    results.print(f"images               {scores.images}, {report.skipped} skipped, {report.images_per_s:.1f}/s")


def predict_command(images: list[Path], server: str, model: str | None, as_json: bool) -> None:
    """`csg predict`: class and confidence of each image."""
    served, predictions = asyncio.run(_predict(images, server, model))
    if as_json:
        print_json({"model": served.name, "version": served.version, "predictions": predictions})
        return
    rows = [(item["image"], item["class"], f"{item['confidence']:.1%}") for item in predictions]
    show_table(f"{served.name} version {served.version}", ("image", "class", "confidence"), rows)


async def _predict(images: list[Path], server: str, model: str | None) -> tuple[ServedModel, list[dict[str, Any]]]:
    """Softmax over the logits of each image; raises InputError at one that can't be read."""
    async with open_model(server, model) as served:
        predictions: list[dict[str, Any]] = []
        async with aclosing(stream(served, images)) as answers:
            async for answer in answers:
                if isinstance(answer, InputError):
                    raise answer
                shares = np.exp(answer.astype(np.float64) - answer.max())
                best, confidence = int(answer.argmax()), float(shares.max() / shares.sum())
                image = str(images[len(predictions)])
                predictions.append({"image": image, "class": served.card.classes[best], "confidence": confidence})
        return served, predictions
