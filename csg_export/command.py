"""`csg export`: from a request to a bundle, and what is printed about it."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import Bundle
from csg.card import STRIDE
from csg.console import log, print_json
from csg.errors import UsageError
from csg_export.export import export
from csg_export.formats import export_format
from csg_export.inspect import model_bytes, show_evaluations, show_parity
from csg_export.options import ExportRequest
from csg_export.precisions import export_precision
from csg_export.sources import Source, from_run, from_torchvision
from csg_export.tensorrt import engine_library
from csg_train.training.run_folder import Run, newest_run

RUNS = Path("runs")


def export_command(request: ExportRequest, as_json: bool) -> None:
    """Export a run or a torchvision classifier as a bundle and print the parity table, or JSON.

    Raises:
        UsageError: the options contradict each other, or a library is missing.
        InputError: the run or the weights can't be used.
        VerificationError: the export differs too much from PyTorch. Nothing is written.
    """
    options, size = request.options, parse_size(request.size)
    precision = export_precision(options)  # refuse unknown names before anything is loaded
    if request.data and not precision.calibrated:
        raise UsageError(f"--data is not used by --precision {options.precision}", "leave it out: int8 alone needs it")
    if export_format(options.format).package:
        engine_library(options.format)
    bundle = export(_open_source(request, size), options, request.out)
    if as_json:
        print_json(_summary(bundle))
    else:
        show_parity(bundle.card)
        show_evaluations(bundle.card)
    log(f"bundle {bundle.path}: {model_bytes(bundle) / 2**20:.1f} MiB, {bundle.card.precision_note}")


def _open_source(request: ExportRequest, size: tuple[int, int] | None) -> Source:
    options = request.options
    if request.torchvision is None:
        if request.weights:
            raise UsageError("--weights is for --torchvision only", "leave it out: a run has its own weights")
        run = Run(request.run or newest_run(RUNS))
        log(f"export: run {run.path}{'' if request.run else ' (newest)'}, {options.format}, {options.precision}")
        return from_run(run, size, request.data, request.real_data)
    if request.run:
        raise UsageError("a run and --torchvision name two networks", "use one of them")
    for option, value in (("--size", size), ("--data", request.data), ("--real-data", request.real_data)):
        if value:
            raise UsageError(f"{option} is for runs only", "leave it out with --torchvision")
    log(f"export: torchvision's {request.torchvision}, {options.format}, {options.precision}")
    return from_torchvision(request.torchvision, request.weights)


def _summary(bundle: Bundle) -> dict[str, object]:
    card = bundle.card
    return {
        "bundle": str(bundle.path),
        "precision": card.precision,
        "format": card.format,
        "bytes": model_bytes(bundle),
        "parity": {"agreement": card.parity.agreement, "max_abs_diff": card.parity.max_abs_diff},
    }


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width from HEIGHTxWIDTH.

    Raises:
        UsageError: the text has another form, or a side is not a multiple of 8.
    """
    if text is None:
        return None
    sides = _numbers(text.lower(), "x")
    if len(sides) != 2 or not all(sides) or any(side % STRIDE for side in sides):
        raise UsageError(f"--size {text} is not HEIGHTxWIDTH", f"use two multiples of {STRIDE}, for example 512x1024")
    return sides[0], sides[1]


def parse_batch(text: str) -> tuple[int, int, int]:
    """Smallest, best and largest batch from MIN:BEST:MAX.

    Raises:
        UsageError: the text has another form, or the sizes are not in order.
    """
    sizes = _numbers(text, ":")
    if len(sizes) != 3 or not 0 < sizes[0] <= sizes[1] <= sizes[2]:
        raise UsageError(f"--batch {text} is not MIN:BEST:MAX", "use three sizes in order, for example 1:8:32")
    return sizes[0], sizes[1], sizes[2]


def _numbers(text: str, separator: str) -> list[int]:
    return [int(part) if part.isdecimal() else 0 for part in text.split(separator)]
