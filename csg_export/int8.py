"""int8: static quantisation with QDQ nodes, weights per channel, ranges measured on training images only."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationMethod as RangeMethod
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from csg.provenance import CalibrationMethod, Int8Calibration
from csg_export.layers import LAYERS
from csg_export.onnx_graph import INPUT, check_graph

CALIBRATION_BATCH = 8
RANGE_METHODS = {method.name.lower(): method for method in RangeMethod}
QUANTIZED_OPERATORS = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
]
"""Operators with int8 kernels in ONNX Runtime and TensorRT. The normalisation and the upsampling stay float32."""


@dataclass(frozen=True)
class Int8Dialect:
    """The kind of QDQ graph that a runtime takes."""

    activations: QuantType
    """Type of the activations."""
    symmetric: bool
    """Whether activations have no zero point."""
    quantize_bias: bool
    """Whether biases are int32; otherwise float32."""
    calibration: Mapping[Literal["classification", "segmentation"], CalibrationMethod]
    """The default method for each task: what cost least on digits, PACS and digit scenes (docs/export.md)."""


ONNXRUNTIME_INT8 = Int8Dialect(
    activations=QuantType.QUInt8,
    symmetric=False,
    quantize_bias=True,
    calibration={"classification": "entropy", "segmentation": "percentile"},
)
"""For ONNX Runtime and OpenVINO: uint8 activations with a zero point, which absorbs ReLUs into the ranges."""

TENSORRT_INT8 = Int8Dialect(
    activations=QuantType.QInt8,
    symmetric=True,
    quantize_bias=False,
    calibration={"classification": "minmax", "segmentation": "entropy"},
)
"""For TensorRT: int8 activations without zero point, float32 biases."""


def to_int8(
    model: ModelProto, batches: Sequence[np.ndarray], settings: Int8Calibration, dialect: Int8Dialect
) -> ModelProto:
    """Quantise a float32 graph; its inputs and outputs keep their types.

    Args:
        batches: prepared training images, uint8 (B, H, W, 3).
        settings: the calibration method, and whether the first and the last layer stay float32.
    """
    model, excluded = _copy(model), []
    if settings.fp32_first_last:
        excluded = [*_first_and_last_layer(model), *_pool_in_float32(model)]
    quantizer = QDQQuantizer(
        model=model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=dialect.activations,
        tensors_range=_ranges(model, batches, settings.method, dialect.symmetric),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=QUANTIZED_OPERATORS,
        extra_options={"ActivationSymmetric": dialect.symmetric, "QuantizeBias": dialect.quantize_bias},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: ModelProto = quantizer.model.model
    del quantized.opset_import[1:]  # the quantizer adds ONNX Runtime's own domain and uses nothing of it
    check_graph(quantized)
    return quantized


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """The calibrator's view of a few batches of images."""

    def __init__(self, batches: Sequence[np.ndarray]):
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self.batches, None)
        return None if images is None else {INPUT: images}


def _ranges(model: ModelProto, batches: Sequence[np.ndarray], method: CalibrationMethod, symmetric: bool) -> Any:
    """The range of each value on the images, a few images at a time: the calibrator keeps every value of a batch.

    Percentiles are taken at both ends even for a symmetric dialect, and the quantizer makes the ranges symmetric. ONNX
    Runtime's histogram of absolute values starts at the smallest value of the first images, and grows without limit
    where that value is far from 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "fp32.onnx")
        onnx.save(model, source)
        with contextlib.redirect_stdout(io.StringIO()):
            calibrator = create_calibrator(
                source,
                QUANTIZED_OPERATORS,
                str(Path(folder, "augmented.onnx")),
                RANGE_METHODS[method],
                extra_options={"symmetric": symmetric and method != "percentile"},
            )
            for images in batches:
                for start in range(0, len(images), CALIBRATION_BATCH):
                    calibrator.collect_data(_Images([images[start : start + CALIBRATION_BATCH]]))
            return calibrator.compute_data()


def _first_and_last_layer(model: ModelProto) -> list[str]:
    names = [node.name for node in model.graph.node if node.op_type in LAYERS]
    return [names[0], names[-1]]


def _pool_in_float32(model: ModelProto) -> list[str]:
    """Move a ResNet's first max pooling before the ReLU of its float32 convolution; returns the pooling's name, if any.

    The values are the same. Otherwise ONNX Runtime moves the quantisation before the pooling, and its 8-bit pooling is
    slow there: 17 ms instead of 1 ms, of the 115 ms that ResNet-50 takes for 8 images.
    """
    nodes = model.graph.node
    users = {name: [node for node in nodes if name in node.input] for node in nodes for name in node.output}
    first = next(node for node in nodes if node.op_type in LAYERS)
    relu = users[first.output[0]]
    pool = users[relu[0].output[0]] if [node.op_type for node in relu] == ["Relu"] else []
    if [node.op_type for node in pool] != ["MaxPool"]:
        return []
    before, after = NodeProto(), NodeProto()
    before.CopyFrom(pool[0])
    after.CopyFrom(relu[0])
    before.input[0], after.input[0] = relu[0].input[0], pool[0].input[0]
    before.output[0], after.output[0] = relu[0].output[0], pool[0].output[0]
    relu[0].CopyFrom(before)
    pool[0].CopyFrom(after)
    shapes = [value for value in model.graph.value_info if value.name != before.output[0]]
    del model.graph.value_info[:]
    model.graph.value_info.extend(shapes)
    return [before.name]


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
