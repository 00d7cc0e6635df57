"""`csg export`: from a request to a bundle, and what is printed about it."""

from __future__ import annotations

from csg.bundle import Bundle
from csg.card import STRIDE
from csg.console import log, print_json
from csg.errors import UsageError
from csg_export.checkpoint_source import from_checkpoint
from csg_export.export import export
from csg_export.formats import export_format
from csg_export.inspect import model_bytes, show_evaluations, show_parity
from csg_export.options import ExportRequest
from csg_export.precisions import export_precision
from csg_export.sources import Source, from_run
from csg_export.tensorrt import engine_library
from csg_export.torchvision_source import from_torchvision
from csg_train.models.weights_licence import limits_of_use
from csg_train.training.run_files import RUNS
from csg_train.training.run_folder import Run, newest_run


def export_command(request: ExportRequest, as_json: bool) -> Bundle:
    """Export as `export_request` does, and print the parity table, or JSON; returns the bundle."""
    bundle = export_request(request)
    if as_json:
        print_json(_summary(bundle))
    else:
        show_parity(bundle.card)
        show_evaluations(bundle.card)
    log(f"bundle {bundle.path}: {model_bytes(bundle) / 2**20:.1f} MiB, {bundle.card.precision_note}")
    if limits := limits_of_use(bundle.card.weights):
        log(limits)
    return bundle


def export_request(request: ExportRequest) -> Bundle:
    """Export a run, a published checkpoint or a torchvision classifier as a bundle.

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
    return export(_open_source(request, size), options, request.out)


def _open_source(request: ExportRequest, size: tuple[int, int] | None) -> Source:
    _check_source(request, size)
    options = request.options
    what = f"{options.format}, {options.precision}"
    if request.torchvision:
        log(f"export: torchvision's {request.torchvision}, {what}")
        return from_torchvision(request.torchvision, request.weights)
    if request.checkpoint:
        log(f"export: checkpoint {request.checkpoint}, {what}")
        return from_checkpoint(
            request.checkpoint, request.classes, size=size, data=request.data, real_data=request.real_data
        )
    run = Run(request.run or newest_run(RUNS))
    log(f"export: run {run.path}{'' if request.run else ' (newest)'}, {what}")
    return from_run(run, size, request.data, request.real_data)


def _check_source(request: ExportRequest, size: tuple[int, int] | None) -> None:
    """Raise UsageError if two networks are named, or an option is not used by the one that is."""
    named = {"a run": request.run, "--checkpoint": request.checkpoint, "--torchvision": request.torchvision}
    given = [name for name, value in named.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} name two networks", "use one of them")
    if request.weights and not request.torchvision:
        raise UsageError("--weights is for --torchvision only", "leave it out: a run has its own weights")
    if request.classes and not request.checkpoint:
        raise UsageError("--classes is for --checkpoint only", "leave it out: a run knows its classes")
    for option, value in (("--size", size), ("--data", request.data), ("--real-data", request.real_data)):
        if value and request.torchvision:
            raise UsageError(f"{option} is not for torchvision's classifiers", "leave it out with --torchvision")


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
