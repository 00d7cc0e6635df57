"""The YAML front matter of a bundle's README.md, in the form that Hugging Face reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from csg.card import ModelCard
from csg.confidence_intervals import wilson
from csg.errors import UsageError, printable
from csg.provenance import ClassificationEvaluation, SegmentationEvaluation
from csg_export.intervals import Interval

Evaluation = ClassificationEvaluation | SegmentationEvaluation
PIPELINES = {"classification": "image-classification", "segmentation": "image-segmentation"}
"""The Hub's name of each task."""
SCORES = {
    "accuracy": ("accuracy", "accuracy"),
    "mean_class_accuracy": ("balanced_accuracy", "mean class accuracy"),
    "miou": ("mean_iou", "mIoU"),
    "pixel_accuracy": ("accuracy", "pixel accuracy"),
}
"""For each score of an evaluation the Hub's name of the metric, and what people call it."""
UNKNOWN = "unknown"
"""The Hub's word for a licence that nobody has stated."""


def check_licence(name: str | None) -> str | None:
    """The licence itself.

    Raises:
        UsageError: it can't be a name of the Hub's.
    """
    if name and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,99}", name):
        raise UsageError(
            f"--license {name} is no name of Hugging Face's, such as apache-2.0 or cc-by-4.0",
            "see huggingface.co/docs/hub/repositories-licenses; one that is not listed there is `other`",
        )
    return name


@dataclass(frozen=True)
class Score:
    """A score on images, as a share."""

    metric: str
    """The Hub's name of the metric."""
    name: str
    """What people call it."""
    value: float
    """The score."""
    interval: Interval | None
    """Its 95 % interval over the images; None: not known."""


def scores_of(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> list[Score]:
    """The scores of an evaluation, with intervals where they are known.

    Args:
        evaluation: of the card.
        intervals: those of the student's scores, by field.
    """
    known = dict(intervals) if evaluation.of == "student" else {}
    if isinstance(evaluation, ClassificationEvaluation) and evaluation.images:
        correct = round(evaluation.accuracy * evaluation.images)
        low, high = wilson(np.array(correct), np.array(evaluation.images))
        known["accuracy"] = float(low), float(high)
    return [
        Score(metric, name, getattr(evaluation, field), known.get(field))
        for field, (metric, name) in SCORES.items()
        if hasattr(evaluation, field)
    ]


def front_matter(
    card: ModelCard, intervals: Mapping[str, Interval], *, licence: str | None, training_data: Sequence[str]
) -> str:
    """The YAML between two lines of dashes.

    Args:
        card: the model card.
        intervals: of the student's scores, by field.
        licence: the model's licence by the Hub's name; None: nobody has stated one.
        training_data: names of the training images' sources.
    """
    main = "accuracy" if card.task == "classification" else "mean_iou"
    fields: dict[str, Any] = {
        "license": licence or UNKNOWN,
        "library_name": "onnx",
        "pipeline_tag": PIPELINES[card.task],
        "tags": ["csg", "onnx", "domain-generalization", "synthetic-to-real", card.precision],
        "datasets": [dataset_id(name) for name in training_data],
        "metrics": [main],
        "model-index": [{"name": card.name, "results": [_result(card, one, intervals) for one in card.evaluations]}],
    }
    if not card.evaluations:
        del fields["metrics"], fields["model-index"]
    if not training_data:
        del fields["datasets"]
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{text}---\n"


def dataset_id(name: str) -> str:
    """A name of images in the characters that the Hub allows in the name of a data set."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "images"


def _result(card: ModelCard, evaluation: Evaluation, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    name = printable(evaluation.dataset)
    return {
        "task": {"type": PIPELINES[card.task]},
        "dataset": {"name": f"{name} ({measured(evaluation)})", "type": dataset_id(name)},
        "metrics": [_metric(score) for score in scores_of(evaluation, intervals)],
    }


def measured(evaluation: Evaluation) -> str:
    """What was measured, and on how many images."""
    network = "the trained network in PyTorch" if evaluation.of == "student" else "the exported graph"
    return f"{network}, {evaluation.images} images"


def _metric(score: Score) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": score.metric, "value": round(score.value, 6), "name": score.name}
    if score.interval:
        low, high = (round(end, 6) for end in score.interval)
        metric["name"] += f", 95 % interval {low:.4f} to {high:.4f}"
        metric["args"] = {"interval_95": [low, high]}
    return metric
