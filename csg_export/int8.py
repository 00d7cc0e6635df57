"""int8: static quantisation as QDQ nodes, weights per channel, ranges measured on the training images alone.

For ONNX Runtime activations are uint8 with a zero point, so that ReLUs vanish into the ranges; TensorRT takes int8
without zero point, and biases in float32.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from csg.card import Calibration
from csg_export.fp16 import BLOCK_STARTS
from csg_export.onnx_graph import INPUT, check

CHUNK = 8
METHODS = {method.name.lower(): method for method in CalibrationMethod}
# What has an int8 kernel on both sides; the rest, the normalisation of pixels and the upsampling of logits, stays fp32.
OPERATIONS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"]


class _Chunk(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Sequence[np.ndarray]):
        self.images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {INPUT: image}


def to_int8(model: ModelProto, images: Sequence[np.ndarray], how: Calibration, for_tensorrt: bool) -> ModelProto:
    """The quantised graph, float32 and uint8 outside as before.

    Args:
        images: batches of prepared training images, uint8 (B, H, W, 3).
        how: the method of calibration, and whether the first and the last layer stay in float32.
    """
    model, kept = _copy(model), []
    if how.float_ends:
        kept = [*_ends(model), *_pooled_in_float(model)]
    options: dict[str, Any] = {"ActivationSymmetric": for_tensorrt, "QuantizeBias": not for_tensorrt}
    activations = QuantType.QInt8 if for_tensorrt else QuantType.QUInt8
    quantizer = QDQQuantizer(
        model=model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=activations,
        tensors_range=_ranges(model, images, how, for_tensorrt),
        nodes_to_quantize=[],
        nodes_to_exclude=kept,
        op_types_to_quantize=OPERATIONS,
        extra_options=options,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: ModelProto = quantizer.model.model
    del quantised.opset_import[1:]  # the quantizer also names ONNX Runtime's own domain, of which it uses nothing
    check(quantised)
    return quantised


def _ranges(model: ModelProto, images: Sequence[np.ndarray], how: Calibration, symmetric: bool) -> Any:
    """The range of each value on the images, a few at a time: the calibrator holds every value of what it is given.

    Percentiles are taken of each end: ONNX Runtime's histogram of absolute values starts at the least value that it
    meets first, and grows without bound where that is far from 0. The quantizer makes them symmetric.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "fp32.onnx")
        onnx.save(model, source)
        with contextlib.redirect_stdout(io.StringIO()):
            calibrator = create_calibrator(
                source,
                OPERATIONS,
                str(Path(folder, "augmented.onnx")),
                METHODS[how.method],
                extra_options={"symmetric": symmetric and how.method != "percentile"},
            )
            for batch in images:
                for start in range(0, len(batch), CHUNK):
                    calibrator.collect_data(_Chunk([batch[start : start + CHUNK]]))
            return calibrator.compute_data()


def _ends(model: ModelProto) -> list[str]:
    names = [node.name for node in model.graph.node if node.op_type in BLOCK_STARTS]
    return [names[0], names[-1]]


def _pooled_in_float(model: ModelProto) -> list[str]:
    """Put a ResNet's first max pooling before the ReLU of the convolution that stays in float32; the pooling's name.

    The values are the same. ONNX Runtime would else move the quantisation before the pooling, and pools 8 bits slowly
    in that place: 17 ms instead of 1, of the 115 that ResNet-50 takes for 8 images.
    """
    nodes = model.graph.node
    users = {name: [node for node in nodes if name in node.input] for node in nodes for name in node.output}
    first = next(node for node in nodes if node.op_type in BLOCK_STARTS)
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
