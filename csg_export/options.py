"""What to make of a network, and which network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from csg.provenance import CalibrationMethod, Format
from csg_export.tensorrt import EngineOptions


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a network."""

    precision: str = "fp32"
    """Name of a row in `csg_export.precisions`."""
    format: Format = "onnx"
    """An ONNX graph, or a graph and an engine built from it."""
    logits: bool = False
    """Segmenters: return the logits beside the label map."""
    embedding: bool = False
    """Classifiers: return the pooled features beside the logits."""
    tolerance: float | None = None
    """Maximum difference of a logit from PyTorch's, as a share of the largest logit; None: the precision's own."""
    calibration: CalibrationMethod | None = None
    """int8: how ranges are derived from values; None: what cost least for the task and format (docs/export.md)."""
    fp32_first_last: bool = True
    """int8: keep the first and the last layer in float32."""
    golden_real: bool = False
    """Keep two of the real images, reduced, in the golden answers, which every client can read."""
    licence: str | None = None
    """The model's licence by Hugging Face's name, for README.md; None: nobody has stated one."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """How the engine is built, for formats that have one."""


@dataclass(frozen=True)
class ExportRequest:
    """The network, and what to make of it: a run, a published checkpoint, or a classifier of torchvision."""

    run: Path | None = None
    """Folder of a finished run; None: the newest, unless another network is named."""
    checkpoint: Path | None = None
    """A checkpoint of the published code, whose student is exported."""
    classes: str | None = None
    """Of the checkpoint: a file with class names, or a segmenter's label set; None: VisDA-17's or Cityscapes'."""
    torchvision: str | None = None
    """Name of a torchvision classifier, exported unmodified."""
    weights: str | None = None
    """Of the torchvision classifier: a file, or "none" for random weights; None: torchvision's best."""
    data: tuple[str, ...] = ()
    """Where the run's training images are now, for int8; empty: where they were. Of a checkpoint, images to use."""
    real_data: tuple[str, ...] = ()
    """Where the run's real images are now; empty: where they were. Of a checkpoint, images to compare on."""
    size: str | None = None
    """Fixed input of a segmenter, as HEIGHTxWIDTH; None: any multiples of 8."""
    options: ExportOptions = field(default_factory=ExportOptions)
    """What to make of the network."""
    out: Path | None = None
    """Folder of the bundle; None: a new one in bundles/."""
