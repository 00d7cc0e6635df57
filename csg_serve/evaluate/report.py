"""An evaluation as one HTML page that needs nothing else: no script, no other file, no network."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from csg import __version__
from csg.card import ModelCard
from csg.confidence_intervals import mean_class_accuracy_interval, wilson
from csg.errors import InputError
from csg.files import atomic_write
from csg.metrics import BINS, Reliability, share_of
from csg_serve.client.client import REQUEST_IMAGES
from csg_serve.evaluate import charts
from csg_serve.evaluate.classification import ClassificationReport
from csg_serve.evaluate.segmentation import SegmentationReport

THUMBNAIL = 160
OVERLAY = 1500  # the longest side of image, prediction and labels side by side
FULL_MATRIX = 40  # of more classes the whole matrix is a picture, and the pairs tell
PAIRS, ALL_PAIRS = 10, 30
LOWEST_SCENES = 10
SHARES = {"agreement", "accuracy", "mean_class_accuracy", "miou", "pixel_accuracy", "frequency_weighted_iou"}


def write_report(
    path: Path, report: ClassificationReport | SegmentationReport, card: ModelCard, images: Sequence[Path]
) -> None:
    """Write the page.

    Args:
        card: of the served model.
        images: the files, by place.

    Raises:
        InputError: it can't be written there.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=True,  # names of classes and files are the user's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, count=count, short=short, capital=capital)
    scenes = isinstance(report, SegmentationReport)
    content = _scenes(report, images) if isinstance(report, SegmentationReport) else _classes(report, images)
    content |= _course(report) | {"card": _facts(card), "about": _about(report)}
    page = environment.get_template("report.html.j2").render(scenes=scenes, report=report, charts=charts, **content)
    try:
        atomic_write(path, page.encode())
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}", "name another file behind --report") from None


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percents; a dash for what there is none of."""
    return "–" if share is None or np.isnan(share) else f"{100 * share:.{digits}f} %"


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def capital(words: str) -> str:
    """Words as a heading; mIoU and its like stay as they are."""
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]


def short(path: str) -> str:
    """The end of a path, by which a person knows the file."""
    return "/".join(Path(path).parts[-2:])


def _classes(report: ClassificationReport, images: Sequence[Path]) -> dict[str, Any]:
    """What the page shows of a classifier."""
    scores, found = report.scores, report.reliability
    confusion, right = scores.confusion, scores.confusion.diagonal()
    lows, highs = wilson(right, confusion.sum(1))
    taken = confusion.sum(0)
    precision = share_of(right, taken)
    rows = [
        {"name": name, "share": share, "size": size, "low": low, "high": high, "precision": exact, "present": size > 0}
        for name, share, size, low, high, exact in zip(
            report.classes, scores.per_class, confusion.sum(1).tolist(), lows, highs, precision, strict=True
        )
    ]
    confidence = float(found.confidence.sum() / 1e6 / scores.images)
    upper, lower = charts.reliability_bars(found)
    mistakes = [
        {
            "picture": charts.thumbnail(images[one.place], THUMBNAIL),
            "path": str(images[one.place]),
            "true": report.classes[one.true],
            "predicted": report.classes[one.predicted],
            "confidence": one.confidence,
        }
        for one in report.mistakes
    ]
    headline = [
        ("accuracy", percent(scores.accuracy, 2), _interval(report.accuracy_interval)),
        (
            "mean class accuracy",
            percent(scores.mean_class_accuracy, 2),
            _interval(mean_class_accuracy_interval(confusion)),
        ),
        ("calibration error", percent(found.ece, 2), f"mean confidence {percent(confidence)}"),
    ]
    return {
        "headline": headline,
        "rows": rows,
        "matrix": _matrix(report.classes, report.classes, confusion),
        "mistakes": mistakes,
        "wrong": scores.images - int(right.sum()),
        "bins": {"upper": upper, "lower": lower, "ece": found.ece, "confidence": confidence, "rows": _bins(found)},
        "request": f"up to {REQUEST_IMAGES} images each",
    }


def _scenes(report: SegmentationReport, images: Sequence[Path]) -> dict[str, Any]:
    """What the page shows of a segmenter."""
    scores, total = report.scores, max(1, int(report.scores.confusion.sum()))
    rows = [
        {
            "name": name,
            "share": share,
            "size": size,
            "present": share == share,
            "colour": "#" + bytes(colour).hex(),
        }
        for name, share, size, colour in zip(
            report.classes, scores.per_class, scores.confusion.sum(1) / total, report.colours, strict=True
        )
    ]
    overlays = [
        {
            "name": name,
            "picture": charts.thumbnail(report.folder / f"{name}.png", OVERLAY),
            "path": str(images[place]),
            "miou": report.of_each[place],
        }
        for name, place in report.telling.items()
    ]
    ranked = np.argsort(report.of_each, kind="stable")[:LOWEST_SCENES].tolist()
    lowest = [
        {"path": str(images[place]), "miou": report.of_each[place]}
        for place in ranked
        if not np.isnan(report.of_each[place])
    ]
    headline = [
        ("mIoU", percent(scores.miou, 2), _interval(report.interval) if report.interval else "of one scene"),
        ("pixel accuracy", percent(scores.pixel_accuracy, 2), f"of {total:,} pixels"),
        ("frequency-weighted IoU", percent(scores.frequency_weighted_iou, 2), "classes by their pixels"),
    ]
    columns = [*report.classes, "none of these"][: scores.confusion.shape[1] - (not scores.confusion[:, -1].any())]
    matrix = _matrix(report.classes, columns, scores.confusion[:, : len(columns)])
    return {"headline": headline, "rows": rows, "matrix": matrix, "overlays": overlays, "lowest": lowest} | {
        "request": "one image each, or its tiles"
    }


def _bins(found: Reliability) -> list[dict[str, Any]]:
    """The numbers behind the reliability diagram."""
    columns = zip(found.images.tolist(), found.mean_confidence.tolist(), found.accuracy.tolist(), strict=True)
    return [
        {"name": f"{100 * m / BINS:.0f} – {100 * (m + 1) / BINS:.0f} %", "images": n, "confidence": c, "accuracy": a}
        for m, (n, c, a) in enumerate(columns)
        if n
    ]


def _matrix(names: Sequence[str], columns: Sequence[str], counts: np.ndarray) -> dict[str, Any]:
    """Counts, shares of the true class, and the pairs that are confused most."""
    of_class = counts.sum(1, keepdims=True)
    shares = np.divide(counts, of_class, out=np.zeros(counts.shape), where=of_class > 0)
    wrong = np.where(np.eye(len(counts), counts.shape[1], dtype=bool), 0, counts)
    full = len(names) <= FULL_MATRIX
    order = np.argsort(-wrong, axis=None, kind="stable")[: PAIRS if full else ALL_PAIRS]
    cells = [(int(place) // counts.shape[1], int(place) % counts.shape[1]) for place in order if wrong.flat[place]]
    pairs = [
        {
            "true": names[row],
            "predicted": columns[column],
            "count": int(counts[row, column]),
            "share": shares[row, column],
        }
        for row, column in cells
    ]
    return {
        "columns": columns,
        "rows": list(zip(names, counts.tolist(), shares.tolist(), strict=True)) if full else [],
        "picture": None if full else charts.matrix_picture(shares[:, : len(names)]),
        "pairs": pairs,
    }


def _course(report: ClassificationReport | SegmentationReport) -> dict[str, Any]:
    bars, ticks, percentiles = charts.latency_bars(report.course.latencies)
    return {"latency_bars": bars, "latency_ticks": ticks, "percentiles": percentiles}


def _about(report: ClassificationReport | SegmentationReport) -> list[tuple[str, str]]:
    """How the figures came about."""
    subject, course = report.subject, report.course
    sittings = "one sitting" if course.sittings == 1 else f"{course.sittings} sittings"
    return [
        ("began", course.began.replace("T", " ").replace("+00:00", " UTC")),
        ("time", f"{course.seconds:,.1f} s of answers, in {sittings}"),
        ("server", ", ".join(course.servers)),
        ("images", ", ".join(subject.sources)),
        ("fingerprint", subject.fingerprint),
        *([("labels", subject.labels)] if subject.labels else []),
        *([("tiles", f"of {subject.tile} x {subject.tile} pixels")] if subject.tile else []),
        ("folder", str(report.folder)),
        ("command", shlex.join(["csg", *sys.argv[1:]])),
        ("versions", f"csg {__version__}, Python {platform.python_version()}, NumPy {np.__version__}"),
    ]


def _facts(card: ModelCard) -> dict[str, list[Any]]:
    """The card as titled lists of names and values, and as titled tables of what it has several of."""
    model: dict[str, Any] = {}
    lists: dict[str, Any] = {"model": model}
    tables: dict[str, Any] = {}
    for name, value in card.model_dump(exclude={"colours"}).items():
        if isinstance(value, dict):
            tables |= {f"{name}: {inner}": value.pop(inner) for inner in list(value) if _several(value[inner])}
            lists[name] = value
        elif _several(value):
            tables[name] = value
        else:
            model[name] = value
    return {
        "lists": [
            (title, [(_plain(name), words) for name, value in facts.items() if (words := _words(value, name))])
            for title, facts in lists.items()
        ],
        "tables": [(title, *_table(parts)) for title, parts in tables.items()],
    }


def _several(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and isinstance(value[0], dict)


def _table(parts: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    names = [name for name in parts[0] if not isinstance(parts[0][name], dict)]
    return [_plain(name) for name in names], [[_words(part.get(name), name) for name in names] for part in parts]


def _plain(name: str) -> str:
    return "KL" if name == "kl" else name.replace("_", " ")


def _words(value: Any, name: str = "") -> str:
    """A value of the card as a person reads it; nothing of what is not there."""
    if value is None:
        return ""
    if name in SHARES:
        return percent(value, 2)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(f"({_words(inner)})" if isinstance(inner, tuple | list) else _words(inner) for inner in value)
    return str(value)


def _interval(bounds: tuple[float, float]) -> str:
    return f"95 % interval {100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}"
