"""The report of an evaluation: one HTML page without scripts, other files or network requests."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from csg import __version__
from csg.card import ModelCard
from csg.errors import InputError, printable
from csg.files import atomic_write
from csg_serve.evaluate import charts
from csg_serve.evaluate.against_section import against_section
from csg_serve.evaluate.card_tables import card_tables
from csg_serve.evaluate.classification import ClassificationReport
from csg_serve.evaluate.report_sections import classification_sections, percent, segmentation_sections
from csg_serve.evaluate.segmentation import SegmentationReport

MIRRORED_RULE = "with mirror image: the class with the highest mean probability of an image and its mirror image"


def write_report(
    path: Path,
    report: ClassificationReport | SegmentationReport,
    card: ModelCard,
    images: Sequence[Path],
    *,
    notes: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        path: file to write.
        report: the figures.
        card: card of the served model.
        images: files of the data set, by index.
        notes: what a reader has to know about how the data set was read.

    Raises:
        InputError: the page can't be written there.
    """
    segmenter = isinstance(report, SegmentationReport)
    if isinstance(report, SegmentationReport):
        sections: object = segmentation_sections(report, images)
    else:
        sections = classification_sections(report, images)
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            segmenter=segmenter,
            report=report,
            sections=sections,
            latency=charts.latency_chart(report.progress.latencies),
            card=card_tables(card),
            about=_about(report, notes),
            charts=charts,
            against=against_section(report.against, images) if report.against else None,
        )
    )
    try:
        atomic_write(path, page.encode())
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}", "give another file to --report") from None


def page_environment() -> Environment:
    """Jinja's environment of the templates in page/."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=True,  # names of classes and files come from the user
        finalize=lambda value: printable(value) if type(value) is str else value,  # not Markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, count=count, short_path=short_path, heading=heading)
    return environment


def count(number: int) -> str:
    """A number with thousands separators."""
    return f"{number:,}"


def heading(text: str) -> str:
    """Text with a capital first letter; names like mIoU stay as they are."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def short_path(path: str) -> str:
    """The last folder and the name of a file."""
    return "/".join(Path(path).parts[-2:])


def _about(report: ClassificationReport | SegmentationReport, notes: Sequence[str]) -> list[tuple[str, str]]:
    """How the figures were obtained: names and values, the date first."""
    spec, progress = report.spec, report.progress
    sessions = "one session" if progress.sessions == 1 else f"{progress.sessions} sessions"
    started = f"{progress.started:%Y-%m-%d %H:%M:%S %Z}" if progress.started else "–"
    return [
        ("started", started),
        ("duration", f"{progress.seconds:,.1f} s, in {sessions}"),
        ("bundle, run in csg's own process" if spec.bundle else "server", ", ".join(progress.servers)),
        ("images", ", ".join(spec.data)),
        *(("note", note) for note in notes),
        ("fingerprint", spec.fingerprint),
        *([("labels", spec.labels)] if spec.labels else []),
        *([("tiles", f"{spec.tile} x {spec.tile} pixels")] if spec.tile else []),
        *([("mirror images", MIRRORED_RULE)] if spec.mirrored else []),
        ("folder", str(report.folder)),
        ("command", shlex.join(["csg", *sys.argv[1:]])),
        ("versions", f"csg {__version__}, Python {platform.python_version()}, NumPy {np.__version__}"),
    ]
