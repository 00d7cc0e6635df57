"""The precisions that `csg export` offers: one row each. docs/how-to/precision.md shows how to add one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from onnx import ModelProto

from csg.card import ComputeType, Runtime
from csg.errors import InputError, UsageError
from csg.provenance import Format, Int8Calibration
from csg_export.external_weights import weights_folder
from csg_export.formats import FORMATS, int8_dialect
from csg_export.fp16 import to_fp16
from csg_export.int8_repair import Int8Graph, int8_graphs
from csg_export.options import ExportOptions
from csg_export.parity import FINITE, Tolerance
from csg_export.sources import Source

MAX_TOLERANCE = 1000.0
"""Largest tolerance that a user can choose."""
MAX_INT8_LOSS = 0.01
"""Maximum loss of accuracy, or mIoU, on the real images."""
AIMED_INT8_LOSS = 0.003
"""Loss at which a graph that is repaired is good enough; if none is, the most accurate within the maximum is taken."""


@dataclass(frozen=True)
class Conversion:
    """What `convert` works from."""

    model: ModelProto
    """The float32 graph. It must not be modified."""
    source: Source
    """The network that it was exported from, and its real and training images."""
    options: ExportOptions
    """What the user chose."""
    within_tolerance: Callable[[ModelProto], bool]
    """Whether a graph is within the precision's tolerance on a sample of the real images and on hard inputs."""


@dataclass(frozen=True)
class Converted:
    """What `convert` returns."""

    model: ModelProto
    """The graph in the new precision, with the inputs and outputs of the float32 graph."""
    detail: str = ""
    """What the model card adds to the precision's note about this graph."""
    intermediate: Mapping[str, ModelProto] = field(default_factory=dict)
    """Further graphs to compare with PyTorch in ONNX Runtime, by the name of their stage."""
    calibration: Int8Calibration | None = None
    """How a graph was quantised."""
    repaired: Iterator[Converted] | None = None
    """Graphs to take instead, each closer to the float32 graph, if this one is refused; made while they are read."""


@dataclass(frozen=True)
class ExportPrecision:
    """A precision."""

    convert: Callable[[Conversion], Converted]
    """Makes the graph."""
    tolerance: Tolerance
    """How far the graph may differ from PyTorch on real images."""
    hard_tolerance: Tolerance
    """How far the graph may differ from PyTorch on hard inputs."""
    note: str
    """What the model card says about weights and arithmetic."""
    compute_type: ComputeType
    """Number type of most of the arithmetic, for runtimes that take it as a setting."""
    runtime: Runtime = "onnxruntime"
    """Library that computes the graph, in the comparison and in Triton."""
    formats: tuple[Format, ...] = tuple(FORMATS)
    """Formats that it is available in."""
    calibrated: bool = False
    """Whether `convert` reads training images."""
    max_score_loss: float | None = None
    """Maximum loss of accuracy, or mIoU, on all real images; None: not measured."""
    aimed_score_loss: float = 0.0
    """Loss at which no further `repaired` graph is tried."""


def _unchanged(conversion: Conversion) -> Converted:
    return Converted(conversion.model)


def _fp16(conversion: Conversion) -> Converted:
    graphs = to_fp16(conversion.model, conversion.within_tolerance)
    names = f" ({', '.join(graphs.float32_blocks)})" if graphs.float32_blocks else ""
    return Converted(
        graphs.model,
        detail=f"; {len(graphs.float32_blocks)} of {graphs.blocks} blocks fp32{names}. On a CPU, csg's server "
        "computes it in fp32; ONNX Runtime itself casts to fp32 and back, which is slower",
        intermediate={"fp16, every value rounded": graphs.rounded},
    )


def _int8(conversion: Conversion) -> Converted:
    source, options = conversion.source, conversion.options
    if weights_folder(conversion.model):
        raise InputError("int8 is not available for weights beyond 2 GB", "use --precision fp16")
    training, unreadable = source.training(), list[str]()
    dialect, batches = int8_dialect(options.format), list(training.batches(unreadable))
    training.report(unreadable)
    settings = Int8Calibration(
        source=training.name,
        images=sum(map(len, batches)),
        method=options.calibration or dialect.calibration[source.task],
        fp32_first_last=options.fp32_first_last,
    )
    graphs = int8_graphs(conversion.model, batches, settings, dialect, fixed_method=options.calibration is not None)
    converted = (_converted_int8(graph) for graph in graphs)
    return replace(next(converted), repaired=converted)


def _converted_int8(graph: Int8Graph) -> Converted:
    settings = graph.settings
    first_last = ", first and last layer fp32" if settings.fp32_first_last else ""
    parts = [f"{first_last}; {settings.method} ranges of {settings.images} training images", *settings.remedies]
    if settings.float32_layers:
        names = ", ".join(layer.name for layer in settings.float32_layers)
        parts.append(f"{len(settings.float32_layers)} of {graph.layers} layers more in fp32 ({names})")
    return Converted(graph.model, detail="; ".join(parts), calibration=settings)


PRECISIONS: dict[str, ExportPrecision] = {
    "fp32": ExportPrecision(
        convert=_unchanged,
        tolerance=Tolerance(1e-4, 0.998),
        hard_tolerance=Tolerance(1e-4, 0.998),
        note="weights and arithmetic fp32",
        compute_type="fp32",
    ),
    "fp16": ExportPrecision(
        convert=_fp16,
        tolerance=Tolerance(2e-2, 0.99),
        hard_tolerance=Tolerance(2e-2, 0.99),
        note="weights and arithmetic fp16",
        compute_type="fp16",
    ),
    "bf16": ExportPrecision(
        convert=_unchanged,
        tolerance=Tolerance(0.1, 0.98),
        hard_tolerance=FINITE,
        note="weights fp32; OpenVINO computes in bf16 on CPUs that have it, in fp32 elsewhere",
        compute_type="bf16",
        runtime="openvino",
        formats=("onnx",),
    ),
    "int8": ExportPrecision(
        convert=_int8,
        tolerance=Tolerance(1.0, 0.0, 0.9),  # clipped ranges cost single logits much and classes little
        hard_tolerance=FINITE,
        note="weights int8 by channel, activations 8 bits",
        compute_type="int8",
        calibrated=True,
        max_score_loss=MAX_INT8_LOSS,
        aimed_score_loss=AIMED_INT8_LOSS,
    ),
}


def export_precision(options: ExportOptions) -> ExportPrecision:
    """The row of the precision, with the user's tolerance if one is given.

    Raises:
        UsageError: there is no such precision, or it is not available in the format.
    """
    name = options.precision
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}", f"use one of {', '.join(PRECISIONS)}")
    precision = PRECISIONS[name]
    if options.format not in precision.formats:
        others = [other for other, row in PRECISIONS.items() if options.format in row.formats]
        raise UsageError(
            f"--precision {name} is not available for --format {options.format}", f"use one of {', '.join(others)}"
        )
    if options.tolerance is None:
        return precision
    if not 0 <= options.tolerance <= MAX_TOLERANCE:
        raise UsageError(f"--tolerance {options.tolerance:g} is no share of a logit", f"use 0 to {MAX_TOLERANCE:g}")
    hard = precision.hard_tolerance
    return replace(
        precision,
        tolerance=replace(precision.tolerance, difference=options.tolerance),
        hard_tolerance=hard if hard == FINITE else replace(hard, difference=options.tolerance),
    )
