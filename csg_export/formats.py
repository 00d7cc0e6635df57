"""The formats that `csg export` writes: one row each."""

from __future__ import annotations

from dataclasses import dataclass

from csg.errors import UsageError
from csg.provenance import Format
from csg_export.int8 import ONNXRUNTIME_INT8, TENSORRT_INT8, Int8Dialect


@dataclass(frozen=True)
class ExportFormat:
    """What the export has to know about a format."""

    int8: Int8Dialect | None
    """The int8 graph that its runtime takes; None: int8 is not available."""
    package: str | None
    """Python package that builds the engine; None: the ONNX graph is all there is."""


FORMATS: dict[Format, ExportFormat] = {
    "onnx": ExportFormat(int8=ONNXRUNTIME_INT8, package=None),
    "tensorrt": ExportFormat(int8=TENSORRT_INT8, package="tensorrt"),
    "tensorrt-rtx": ExportFormat(int8=TENSORRT_INT8, package="tensorrt_rtx"),
}


def export_format(name: Format) -> ExportFormat:
    """The row of a format.

    Raises:
        UsageError: there is no such format.
    """
    if name not in FORMATS:
        raise UsageError(f"unknown format {name!r}", f"use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def int8_dialect(name: Format) -> Int8Dialect:
    """The int8 graph that a format takes.

    Raises:
        UsageError: there is no such format, or it has no int8.
    """
    dialect = export_format(name).int8
    if dialect is None:
        raise UsageError(f"--precision int8 is not available for --format {name}", "choose another precision")
    return dialect
